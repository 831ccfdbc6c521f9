"""The whole mesh for other programs: what its flat arguments mean, checked as a stack's config is."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pulumi

from components.args import MeshSettings
from components.deploy import project
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from components.forms import FORMS
from components.mesh import Mesh as Composition
from components.nodes.report import require_fit
from components.package.arguments import MeshArgs
from components.settings import parse

ELSEWHERE: Final = frozenset({"trust.issuerCertificate", "trust.issuerKey", "demo.enabled", "demo.rate"})
"""Config keys with no argument: a private key must not become a resource's input, and the demo is this project's."""


class Mesh(Composition):
    """The mesh: trust and its keeper, identity, destination, injector, Prometheus, and the namespaces it meshes."""

    trust_bundle: pulumi.Output[str]
    """PEM of all trust anchors, public."""
    prometheus_url: pulumi.Output[str]
    """Where the mesh's metrics are asked for, from inside the cluster; empty if nowhere."""

    def __init__(self, name: str, args: MeshArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, settings_of(args), opts)


def settings_of(args: MeshArgs) -> MeshSettings:
    """The settings that arguments mean, checked as a stack's config is; raises RunError for what cannot be used."""
    given: dict[str, Any] = dict(args)
    context = given.pop("context")
    kubeconfig = given.pop("kubeconfig", "~/.kube/config")
    schema = project.load(project.own()).schema
    texts = {key: schema[key]["default"] for key in FORMS}
    for key in FORMS:
        if key not in ELSEWHERE and (name := argument_of(key)) in given:
            texts[key] = given.pop(name)
    if given:
        raise pulumi.RunError(
            f"Mesh has no argument {sorted(given)[0]!r}; it has {', '.join(MeshArgs.__annotations__)}"
        )
    raw = {
        f"tulle:{key}": value if isinstance(value, str) else json.dumps(_whole(value)) for key, value in texts.items()
    }
    try:
        found = parse(raw, Target(os.path.expanduser(kubeconfig), context))
        require_fit(found, pulumi.get_stack(), Path())
        return found
    except DeployError as error:
        raise pulumi.RunError(str(error)) from None


def argument_of(key: str) -> str:
    """The argument that stands for a config key: `proxy.inboundPolicy` is `proxy_inbound_policy`."""
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
    return words.replace(".", "_")


def _text(value: Any) -> str:
    """A value as Pulumi's config would hand it over."""
    return value if isinstance(value, str) else json.dumps(_whole(value))


def _whole(value: Any) -> Any:
    """Numbers as they were meant: the component host hands them over as doubles."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(item) for item in value] if isinstance(value, list) else value
