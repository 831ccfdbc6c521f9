"""Which cluster a stack means: pure, but for looking at the environment given to it. Nothing is ever taken from a
current context.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from components.deploy.errors import DeployError
from components.deploy.refs import Target

LOCAL_STACK: Final = "local"
LOCAL_CONTEXT: Final = "tulle-local"
CONTEXT_KEY: Final = "kubernetes:context"
KUBECONFIG_KEY: Final = "kubernetes:kubeconfig"


def choose(
    stack: str, config: Mapping[str, str], context: str, kubeconfig: str, environment: Mapping[str, str]
) -> Target:
    """The command line's cluster, else the stack file's, else (stack local only) Tulle's own local cluster."""
    named = context or config.get(CONTEXT_KEY, "")
    file = kubeconfig or config.get(KUBECONFIG_KEY, "")
    if stack == LOCAL_STACK and not named:
        return Target(_expanded(file, environment) or str(local_kubeconfig(environment)), LOCAL_CONTEXT)
    if not named:
        raise DeployError(
            f"stack {stack!r} names no cluster",
            f"Pass --context NAME (a context of your kubeconfig), or set {CONTEXT_KEY} in Pulumi.{stack}.yaml.",
        )
    return Target(
        _expanded(file or environment.get("KUBECONFIG", "").split(":")[0] or "~/.kube/config", environment), named
    )


def local_kubeconfig(environment: Mapping[str, str]) -> Path:
    """The kubeconfig of the local cluster: in the one state folder of this user."""
    if environment.get("TULLE_STATE"):
        return Path(environment["TULLE_STATE"]) / "kubeconfig"
    home = Path(environment.get("HOME", "~")).expanduser()
    return Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "tulle" / "kubeconfig"


def _expanded(path: str, environment: Mapping[str, str]) -> str:
    home = environment.get("HOME", "")
    return f"{home}{path[1:]}" if home and path.startswith("~/") else path
