"""The render pass: every object the program declares, as values in the order in which they can be applied; asks no
cluster.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from components.deploy import manifests, wire
from components.deploy.errors import DeployError
from components.deploy.refs import Manifest, Ref
from components.deploy.registration import Outcome, Registration

ORDER: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Service",
    "PodDisruptionBudget",
    "Job",
    "StatefulSet",
    "DaemonSet",
    "Deployment",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
)
"""Kinds in the order in which one may need the other; a kind that is not named comes last."""


class Renderer:
    """Answers the program with what it asked for."""

    def __init__(self) -> None:
        self._found: dict[Ref, Manifest] = {}
        self._lock = threading.Lock()

    def register(self, registration: Registration) -> Outcome:
        """Take one object; refuses what no manifest can say."""
        if registration.dynamic:
            raise DeployError(
                f"the program declares {registration.name} ({registration.type}), which no manifest can say",
                "Deploy it with `tulle up` or `pulumi up`.",
            )
        manifest = manifests.manifest_of(registration.inputs)
        ref = Ref.of(manifest)
        if wire.has_unknown(manifest):
            raise DeployError(f"{ref} has a value that only a deployment can know", "Deploy it with `tulle up`.")
        if manifest["kind"] == "Secret":
            raise DeployError(f"{ref} holds a secret, which is not printed", "Deploy it with `tulle up`.")
        with self._lock:
            if ref in self._found:
                raise DeployError(f"the program declares {ref} twice", "Remove one of the two, or rename it.")
            self._found[ref] = manifest
        return Outcome(manifests.identity_of(ref), manifest)

    def stop(self) -> None:
        """Nothing is waited for."""

    def finish(self, outputs: dict[str, Any]) -> None:
        """Outputs are of a deployment."""

    def complete(self, late: Iterable[str]) -> list[Manifest]:
        """All objects in order; those in the namespaces `late` after everything else."""
        namespaces = frozenset(late)

        def place(ref: Ref) -> tuple[bool, int, str, str, str]:
            rank = ORDER.index(ref.kind) if ref.kind in ORDER else len(ORDER)
            return ref.namespace in namespaces, rank, ref.namespace, ref.kind, ref.name

        return [_sorted(self._found[ref]) for ref in sorted(self._found, key=place)]


def _sorted(manifest: Manifest) -> Manifest:
    """The same object with its keys in one order, whatever order they travelled in."""
    first = ("apiVersion", "kind", "metadata")
    return {key: _deep(manifest[key]) for key in (*first, *sorted(set(manifest) - set(first))) if key in manifest}


def _deep(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _deep(value[key]) for key in sorted(value)}
    return [_deep(item) for item in value] if isinstance(value, list) else value
