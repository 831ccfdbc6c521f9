"""Control planes side by side: pure. How the parts of a further one are called, and which one serves a Namespace or a
Pod.

A revision is everything that proxies speak to (identity, destination, injector) once more, of another version. Trust,
Prometheus and the namespaces are the mesh's, so workloads of all revisions talk to each other as before.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from proxy.api import labels

Object = Mapping[str, Any]

_ASKED = "TULLE_PROXY_DESTINATION_SVC_NAME"


def named(name: str, revision: str) -> str:
    """A name of the mesh's own control plane as a revision has it; the mesh's own is called ''."""
    return f"{name}-{revision}" if revision else name


def revision_of(namespace: Object, declared: Collection[str]) -> str:
    """Which control plane injects a Namespace's pods: one that its label names and that exists, else the mesh's own."""
    wanted = str((namespace.get("metadata", {}).get("labels") or {}).get(labels.REVISION, ""))
    return wanted if wanted in declared else ""


def serving(pod: Object) -> str:
    """The identity of the destination that a Pod's proxy asks; empty for a Pod without proxy."""
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if container["name"] == labels.PROXY_CONTAINER:
            return next(
                (str(each.get("value", "")) for each in container.get("env") or [] if each["name"] == _ASKED), ""
            )
    return ""


def users(revision: str, mesh_namespace: str, pods: Iterable[Object]) -> list[str]:
    """The namespaces whose Pods are served by a revision, its own parts aside."""
    destination = f"{named('destination', revision)}.{mesh_namespace}."
    return sorted(
        {
            str(pod["metadata"]["namespace"])
            for pod in pods
            if pod["metadata"]["namespace"] != mesh_namespace and serving(pod).startswith(destination)
        }
    )
