"""Which cluster a command is about. Never another one than was named: without options it is Tulle's own local cluster,
whatever $KUBECONFIG says.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.deploy.errors import ClusterError
from components.deploy.refs import Target
from components.deploy.target import LOCAL_CONTEXT, local_kubeconfig


def find_target(kubeconfig: str | None, context: str | None, environ: Mapping[str, str] = os.environ) -> Target:
    """The cluster that the options mean; raises ClusterError when there is none."""
    if kubeconfig is not None:
        path = Path(kubeconfig).expanduser()
        if not path.is_file():
            raise ClusterError(f"kubeconfig {path} does not exist", "Name an existing file with --kubeconfig.")
        return Target(str(path), context or _current_context(path))
    if context is not None:
        path = Path(environ.get("KUBECONFIG", "").split(":")[0] or "~/.kube/config").expanduser()
        if not path.is_file():
            raise ClusterError(
                f"kubeconfig {path} does not exist",
                "--context alone means $KUBECONFIG or ~/.kube/config; name a file with --kubeconfig.",
            )
        return Target(str(path), context)
    path = local_kubeconfig(environ)
    if not path.is_file():
        raise ClusterError(
            f"there is no local cluster: kubeconfig {path} does not exist",
            "Start it with `make up`, or name another with --context and --kubeconfig.",
        )
    return Target(str(path), LOCAL_CONTEXT)


def _current_context(path: Path) -> str:
    try:
        document: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(f"kubeconfig {path} cannot be read: {error}", "Name another with --kubeconfig.") from error
    current = document.get("current-context") if isinstance(document, dict) else None
    if not current:
        raise ClusterError(f"kubeconfig {path} has no current-context", "Name one of its contexts with --context.")
    return str(current)
