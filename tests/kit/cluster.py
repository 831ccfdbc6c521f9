"""Tulle's own local cluster, as tests use it: objects, pods, logs, events, and the processes behind them on this
machine.

Tests never take another cluster: there is no option for one.
"""

import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from components.cli.access import Access
from components.cli.prometheus import Prometheus, is_ready
from components.deploy.refs import Ref, Target
from components.deploy.target import LOCAL_CONTEXT, local_kubeconfig
from proxy.api import labels
from tests.kit.waiting import until

Json = dict[str, Any]
MANAGER: Final = "tulle-tests"
MESH: Final = labels.MESH_NAMESPACE


class Kube(Access):
    """The local cluster."""

    def __init__(self) -> None:
        super().__init__(Target(str(local_kubeconfig(os.environ)), LOCAL_CONTEXT))
        self.prometheus = Prometheus(self, MESH)

    @staticmethod
    def missing() -> str:
        """Why there is no local cluster to test on; empty when there is one."""
        path = local_kubeconfig(os.environ)
        return "" if path.is_file() else f"no local cluster ({path} does not exist); `make up` starts it"

    def put(self, *manifests: Json) -> None:
        """Apply objects in order."""
        for manifest in manifests:
            self.apply(manifest, MANAGER)

    def remove_namespace(self, name: str) -> None:
        """Ask for a namespace's deletion."""
        self.delete(Ref("v1", "Namespace", "", name))

    def gone(self, name: str) -> None:
        """Wait until a namespace that was removed is no more."""
        ref = Ref("v1", "Namespace", "", name)
        until(f"namespace {name} gone", lambda: self.get(ref) is None, 120, 0.5)

    def pods(self, namespace: str, app: str = "") -> list[Json]:
        """Live pods, by their label `app`."""
        found = self.list("v1", "Pod", namespace, f"app={app}" if app else "")
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def ready_pods(self, namespace: str, app: str, count: int = 1, seconds: float = 90) -> list[Json]:
        """Wait until exactly `count` pods are there and all are ready."""

        def look() -> list[Json] | None:
            found = self.pods(namespace, app)
            return found if len(found) == count and all(is_ready(pod) for pod in found) else None

        try:
            return until(f"{count} ready pods of {namespace}/{app}", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(namespace)}") from None

    def story(self, namespace: str) -> str:
        """What is known of a namespace's pods: for the message of a test that gave up on them."""
        lines = []
        for pod in self.list("v1", "Pod", namespace):
            status = pod.get("status") or {}
            states = [
                f"{entry['name']}={json.dumps(entry.get('state'))[:200]}"
                for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
                if not entry.get("ready")
            ]
            lines.append(f"{pod['metadata']['name']}: {status.get('phase')} {' '.join(states)}")
        lines += [
            f"event {e['reason']} on {e['involvedObject']['name']}: {e['message']}"
            for e in self.events(namespace)[-10:]
        ]
        return "\n".join(lines)

    def events(self, namespace: str) -> list[Json]:
        """Events of a namespace, oldest first."""
        found = self.list("v1", "Event", namespace)
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def logs(self, namespace: str, pod: str, container: str, previous: bool = False) -> str:
        """A container's log."""
        options = {"container": container, **({"previous": "true"} if previous else {})}
        return self.text(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", **options)

    def counts(self, namespace: str, pod: str, port: int = 8081) -> Json:
        """The counts of one of the demo's clients or servers."""
        found: Json = json.loads(self.pod_get(namespace, pod, port, "/counts"))
        return found

    def metrics(self, namespace: str, pod: str) -> str:
        """What a pod's proxy exposes."""
        return self.pod_get(namespace, pod, labels.ADMIN_PORT, "/metrics").decode()

    def scale(self, namespace: str, deployment: str, replicas: int) -> None:
        """Set a Deployment's number of replicas."""
        self.merge("apps/v1", "Deployment", namespace, deployment, {"spec": {"replicas": replicas}})

    def restart(self, namespace: str, deployment: str) -> None:
        """Begin a rollout and wait until it is complete."""
        stamp = {"tulle.io/restarted": os.urandom(4).hex()}
        change = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
        self.merge("apps/v1", "Deployment", namespace, deployment, change)
        self.rolled_out(namespace, deployment)

    def rolled_out(self, namespace: str, deployment: str, seconds: float = 180) -> Json:
        """Wait until a Deployment is what it declares, with nothing left of what it was."""
        ref = Ref("apps/v1", "Deployment", namespace, deployment)

        def look() -> Json | None:
            found = self.get(ref)
            if found is None:
                return None
            status, wanted = found.get("status") or {}, found["spec"].get("replicas", 1)
            done = (
                status.get("observedGeneration", 0) >= found["metadata"]["generation"]
                and status.get("updatedReplicas", 0) == wanted
                and status.get("readyReplicas", 0) == wanted
                and status.get("replicas", 0) == wanted
            )
            return found if done else None

        try:
            return until(f"{namespace}/{deployment} rolled out", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(namespace)}") from None

    def merge(self, api_version: str, kind: str, namespace: str, name: str, change: Json) -> Json:
        """A merge patch."""
        path = self.path(Ref(api_version, kind, namespace, name))
        body = json.dumps(change)
        return self.request("PATCH", path, body=body, content_type="application/merge-patch+json")

    def image(self) -> str:
        """The control-plane image, which holds the demo's programs too."""
        found = self.get(Ref("apps/v1", "Deployment", MESH, "destination"))
        assert found is not None, "the mesh is not installed"
        every = found["spec"]["template"]["spec"]["containers"]
        return str(next(c["image"] for c in every if c["name"] != labels.PROXY_CONTAINER))


def processes(environment: Mapping[str, str]) -> list[int]:
    """This machine's processes (pods run on it) whose environment holds all of these."""
    wanted = {f"{key}={value}".encode() for key, value in environment.items()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def kill_proxy(namespace: str, pod: str) -> None:
    """kill -9 of one pod's proxy, as an out-of-memory kill would."""
    found = processes({"TULLE_PROXY_POD_NAME": pod, "TULLE_PROXY_POD_NAMESPACE": namespace})
    assert found, f"no proxy process of {namespace}/{pod} on this machine"
    for process in found:
        os.kill(process, signal.SIGKILL)


def total(samples: Iterable[tuple[Mapping[str, str], float]], **wanted: str) -> float:
    """The sum of the samples that carry these labels."""
    return sum(value for found, value in samples if all(found.get(key) == text for key, text in wanted.items()))
