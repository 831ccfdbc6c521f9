"""Pure: is a live object ready, still on its way, or lost; judged from the object and its pods.

Ready means what Pulumi's Kubernetes provider waits for. Lost is decided as soon as no patience would help: an image
that cannot be pulled, a container that keeps crashing, a pod that admission refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from components.deploy.refs import Manifest

SKIP_AWAIT: Final = "pulumi.com/skipAwait"
HOPELESS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
    }
)
"""Reasons of a waiting container that its own retries rarely cure; CrashLoopBackOff counts after CRASHES restarts."""
CRASHES: Final = 4
"""Restarts of one container that end a rollout: with fewer, a start that waits for a neighbour may still succeed."""
REFUSED: Final = ("denied the request", "is forbidden")
"""Words of an admission (a webhook that answered, a quota, a security standard) that says no and will again."""
IMAGE_WAY_OUT: Final = (
    "Push the images to a registry the nodes can pull from (`make push REGISTRY=...`), pass "
    "-c images.refs=@build/images-pushed.json and set images.pullSecret; for kind or k3d load them into the nodes "
    "(`make images ARCHIVE=...`); on the local cluster `make up` builds and loads them."
)


@dataclass(frozen=True, slots=True)
class Ready:
    """Nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet; the words are for the display."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """It will not become ready."""

    reason: str
    way_out: str


Verdict = Ready | Waiting | Lost


def judge(live: Manifest, pods: Sequence[Manifest] = ()) -> Verdict:
    """The verdict on one object; `pods` are those of a workload's newest revision."""
    annotations = live.get("metadata", {}).get("annotations") or {}
    if annotations.get(SKIP_AWAIT) == "true":
        return Ready()
    kind, status = live["kind"], live.get("status") or {}
    if live["metadata"].get("deletionTimestamp"):
        return Waiting("being deleted")
    if kind == "Namespace":
        return Ready() if status.get("phase", "Active") == "Active" else Waiting("being deleted")
    if kind == "CustomResourceDefinition":
        return Ready() if _condition(status, "Established") == "True" else Waiting("not established")
    if kind in ("Deployment", "StatefulSet", "DaemonSet"):
        return _workload(live, status, pods)
    if kind == "Job":
        return _job(status, pods)
    return Ready()


def has_pods(kind: str) -> bool:
    """Whether a verdict on this kind looks at pods."""
    return kind in ("Deployment", "StatefulSet", "DaemonSet", "Job")


def _workload(live: Manifest, status: Manifest, pods: Sequence[Manifest]) -> Verdict:
    lost = _lost(pods)
    if live["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = live.get("spec", {}).get("replicas", 1)
        updated = status.get("updatedReplicas", 0)
        ready = status.get("availableReplicas" if live["kind"] == "Deployment" else "readyReplicas", 0)
    total = status.get("replicas", updated)
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    if seen and updated >= wanted and ready >= wanted and total <= updated:
        return Ready()
    if lost:
        return lost
    refused = _condition_message(status, "ReplicaFailure")
    if any(words in refused for words in REFUSED):
        return Lost(f"its pods are refused: {refused}", "Correct what the message names and run again.")
    if refused and not updated:
        return Waiting(f"no pods yet: {refused}")
    return Waiting(_progress(pods) or f"{min(ready, updated)} of {wanted} ready")


def _job(status: Manifest, pods: Sequence[Manifest]) -> Verdict:
    if _condition(status, "Complete") == "True":
        return Ready()
    if _condition(status, "Failed") == "True":
        return Lost(
            f"job failed: {_condition_message(status, 'Failed')}",
            "Read its pod's log, correct the cause and run again.",
        )
    return _lost(pods) or Waiting("running")


def _lost(pods: Sequence[Manifest]) -> Lost | None:
    for pod, status in _containers(pods):
        state = (status.get("state") or {}).get("waiting") or {}
        reason, message = state.get("reason", ""), state.get("message", "")
        where = f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}, container {status['name']}"
        if reason in HOPELESS:
            way_out = IMAGE_WAY_OUT if "Image" in reason else "Correct what the message names and run again."
            return Lost(f"{where}: {reason}: {message or status.get('image', '')}", way_out)
        if reason == "CrashLoopBackOff" and status.get("restartCount", 0) >= CRASHES:
            last = ((status.get("lastState") or {}).get("terminated")) or {}
            code, words = last.get("exitCode", "?"), (last.get("message") or last.get("reason") or "").strip()
            pod_name = f"{pod['metadata']['name']} -n {pod['metadata']['namespace']}"
            log = f"kubectl logs {pod_name} -c {status['name']} --previous"
            return Lost(f"{where} keeps crashing (exit code {code} {words})", f"Read `{log}`.")
    return None


def _progress(pods: Sequence[Manifest]) -> str:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"pod {pod['metadata']['name']} cannot be scheduled: {condition.get('message', '')}"
    for pod, status in _containers(pods):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"pod {pod['metadata']['name']}: {status['name']} {waiting['reason']}"
    return ""


def _containers(pods: Sequence[Manifest]) -> list[tuple[Manifest, Any]]:
    return [
        (pod, status)
        for pod in pods
        for group in ("initContainerStatuses", "containerStatuses")
        for status in pod.get("status", {}).get(group) or []
    ]


def _condition(status: Manifest, name: str) -> str:
    return next((str(c.get("status")) for c in status.get("conditions") or [] if c.get("type") == name), "")


def _condition_message(status: Manifest, name: str) -> str:
    return next((str(c.get("message", "")) for c in status.get("conditions") or [] if c.get("type") == name), "")
