"""I/O: wait until an applied object is ready, is lost, or is gone."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from components.deploy import readiness
from components.deploy.cluster import Cluster
from components.deploy.errors import NotReadyError, StoppedError
from components.deploy.refs import Manifest, Ref

READY_TIMEOUT: Final = 300.0
"""Seconds for one object; image pulls over a slow line are the longest honest reason."""
GONE_TIMEOUT: Final = 180.0
"""Seconds for a deletion: a pod's grace period, its namespace's clean-up, and room."""
LOST_GRACE: Final = 6.0
"""Seconds for which an object must stay lost before it is given up, so that one failed pull that the next cures is no
failure.
"""
INTERVAL: Final = 0.4
REVISION: Final = "deployment.kubernetes.io/revision"


def until_ready(
    cluster: Cluster, live: Manifest, timeout: float, stop: threading.Event, report: Callable[[str], None]
) -> Manifest:
    """The live object once it is ready; raises NotReadyError with the cause seen in its pods."""
    ref, deadline, lost_since, said = Ref.of(live), time.monotonic() + timeout, 0.0, ""
    while True:
        verdict = readiness.judge(live)
        if isinstance(verdict, readiness.Ready):
            return live
        if readiness.has_pods(ref.kind):
            verdict = readiness.judge(live, newest_pods(cluster, live))
        now = time.monotonic()
        if isinstance(verdict, readiness.Lost):
            lost_since = lost_since or now
            if now - lost_since >= LOST_GRACE:
                raise NotReadyError(f"{ref} will not become ready: {verdict.reason}", verdict.way_out)
        else:
            lost_since = 0.0
        reason = verdict.reason if isinstance(verdict, readiness.Waiting | readiness.Lost) else ""
        if reason != said:
            report(said := reason)
        if now > deadline:
            raise NotReadyError(
                f"{ref} was not ready within {timeout:.0f} s: {reason}",
                f"Look at `kubectl describe {ref.kind.lower()} {ref.name}"
                + (f" -n {ref.namespace}`" if ref.namespace else "`")
                + ", then run again; what is applied already is kept.",
            )
        if stop.wait(INTERVAL):
            raise StoppedError(str(ref))
        found = cluster.get(ref)
        if found is None:
            raise NotReadyError(
                f"{ref} was deleted while it was waited for", "Find out who deletes it, then run again."
            )
        live = found


def until_gone(cluster: Cluster, uids: dict[Ref, str], report: Callable[[Ref, str], None]) -> None:
    """Return once none of these objects exists (one of the same name with another UID does not count)."""
    deadline, left = time.monotonic() + GONE_TIMEOUT, dict(uids)
    while left:
        for ref, uid in list(left.items()):
            live = cluster.get(ref)
            if live is None or (uid and live["metadata"]["uid"] != uid):
                del left[ref]
            elif time.monotonic() > deadline:
                held = ", ".join(live["metadata"].get("finalizers") or []) or _conditions(live)
                raise NotReadyError(
                    f"{ref} is not gone after {GONE_TIMEOUT:.0f} s; held by: {held or 'unknown'}",
                    "Remove what holds it, then run `tulle down` again.",
                )
            else:
                report(ref, "going")
        if left:
            time.sleep(INTERVAL)


def newest_pods(cluster: Cluster, workload: Manifest) -> Sequence[Manifest]:
    """The pods of a workload's newest revision."""
    namespace, uid = workload["metadata"]["namespace"], workload["metadata"]["uid"]
    labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    if not selector:
        return []
    pods = cluster.list("v1", "Pod", namespace, selector)
    if workload["kind"] != "Deployment":
        return [pod for pod in pods if _owned(pod, uid)]
    revision = (workload["metadata"].get("annotations") or {}).get(REVISION)
    for replica_set in cluster.list("apps/v1", "ReplicaSet", namespace, selector):
        annotations = replica_set["metadata"].get("annotations") or {}
        if _owned(replica_set, uid) and annotations.get(REVISION) == revision:
            return [pod for pod in pods if _owned(pod, replica_set["metadata"]["uid"])]
    return []


def _owned(thing: Manifest, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in thing["metadata"].get("ownerReferences") or [])


def _conditions(live: Manifest) -> str:
    conditions = (live.get("status") or {}).get("conditions") or []
    return "; ".join(str(c.get("message")) for c in conditions if c.get("status") == "True" and c.get("message"))
