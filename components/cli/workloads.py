"""Pods and what they belong to: pure. Which pods are meshed, and by which name their workload is known."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.api import labels

Pod = Mapping[str, Any]


def is_meshed(pod: Pod, mesh_namespace: str) -> bool:
    """Whether this mesh injected the pod."""
    return bool((pod["metadata"].get("labels") or {}).get(labels.CONTROL_PLANE_NAMESPACE) == mesh_namespace)


def is_live(pod: Pod) -> bool:
    """Neither finished nor on its way out."""
    finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not finished and not pod["metadata"].get("deletionTimestamp")


def owner_of(pod: Pod) -> tuple[str, str]:
    """Kind and name of the workload that made the pod, a Deployment for its ReplicaSet's; if none, the pod."""
    metadata = pod["metadata"]
    owner: Mapping[str, Any] = next((ref for ref in metadata.get("ownerReferences") or [] if ref.get("controller")), {})
    kind, name = str(owner.get("kind", "Pod")).lower(), str(owner.get("name", metadata.get("name", "")))
    template_hash = (metadata.get("labels") or {}).get("pod-template-hash")
    if kind == "replicaset" and template_hash and name.endswith(f"-{template_hash}"):
        return "deployment", name.removesuffix(f"-{template_hash}")
    return kind, name


def names_of_kind(pods: Iterable[Pod], kind: str, mesh_namespace: str) -> Iterator[tuple[str, str]]:
    """Namespace and name of each workload of a kind that has a live meshed pod."""
    seen: set[tuple[str, str]] = set()
    for pod in pods:
        if not is_meshed(pod, mesh_namespace) or not is_live(pod):
            continue
        owner_kind, owner = owner_of(pod)
        name = pod["metadata"]["name"] if kind == "pod" else owner if owner_kind == kind else ""
        key = (str(pod["metadata"]["namespace"]), str(name))
        if name and key not in seen:
            seen.add(key)
            yield key


def proxy_status(pod: Pod) -> Mapping[str, Any]:
    """The status of the pod's proxy container, wherever it runs: a native sidecar's is among the init containers'."""
    return _status(pod, labels.PROXY_CONTAINER)


def init_status(pod: Pod) -> Mapping[str, Any]:
    """The status of the container that sets up redirection, or proves that a CNI plugin has."""
    return _status(pod, labels.INIT_CONTAINER) or _status(pod, labels.VALIDATOR_CONTAINER)


def _status(pod: Pod, container: str) -> Mapping[str, Any]:
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    found: Mapping[str, Any] = next((entry for entry in every if entry.get("name") == container), {})
    return found
