"""The demo's programs put on the cluster for a test: servers behind Services, clients that count."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.kit import objects
from tests.kit.cluster import Kube
from tests.kit.waiting import until

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Apps:
    """Starts programs from one image on one cluster."""

    kube: Kube
    image: str

    def serve(
        self,
        app: str,
        namespace: str,
        replicas: int = 1,
        annotations: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> list[Json]:
        """A Deployment of a program, its Service, and its ready pods."""
        containers = [objects.app_container(app, self.image, env or {})]
        name = app.replace("_", "-")
        self.kube.put(
            objects.deployment(name, namespace, containers, replicas, annotations),
            objects.service(name, namespace, objects.PORTS[app]),
        )
        return self.kube.ready_pods(namespace, name, replicas) if wait else []

    def client(self, namespace: str, target: str, rate: float, new: float = 0) -> "Client":
        """An open-loop client that runs until its namespace goes."""
        env = {"TARGET": target, "RATE": f"{rate:g}", "NEW_CONNECTIONS_PER_SECOND": f"{new:g}"}
        (pod,) = self.serve("traffic", namespace, env=env)
        return Client(self.kube, namespace, pod["metadata"]["name"], pod["status"]["podIP"])

    def bounded_client(self, namespace: str, target: str, rate: float, new: float, seconds: float) -> Json:
        """An open-loop client that ends by itself; its own last counts."""
        env = {
            "TARGET": target,
            "RATE": f"{rate:g}",
            "NEW_CONNECTIONS_PER_SECOND": f"{new:g}",
            "DURATION_SECONDS": f"{seconds:g}",
        }
        containers = [objects.app_container("traffic", self.image, env)]
        self.kube.put(objects.pod("bounded", namespace, containers, restartPolicy="Never"))

        def ended() -> str | None:
            (found,) = self.kube.list("v1", "Pod", namespace, "app=bounded")
            phase = found["status"].get("phase")
            return phase if phase in ("Succeeded", "Failed") else None

        until("the bounded client ended", ended, seconds + 90, 0.5)
        lines = self.kube.logs(namespace, "bounded", "app").splitlines()
        counts: Json = json.loads([line for line in lines if line.startswith("{")][-1])
        return counts


@dataclass(frozen=True, slots=True)
class Client:
    """A running open-loop client."""

    kube: Kube
    namespace: str
    pod: str
    address: str

    def counts(self) -> Json:
        """What it has counted so far."""
        return self.kube.counts(self.namespace, self.pod)

    def wait_for(self, ok: int, seconds: float = 60) -> Json:
        """Wait until so many requests have succeeded."""

        def look() -> Json | None:
            counts = self.counts()
            return counts if counts["ok"] >= ok else None

        return until(f"{ok} successful requests of {self.namespace}/{self.pod}", look, seconds)


def since(before: Json, after: Json) -> Json:
    """What happened between two counts."""
    causes = {key: n - before["causes"].get(key, 0) for key, n in after["causes"].items()}
    answers = {key: n - before["answers"].get(key, 0) for key, n in after["answers"].items()}
    numbers = {key: after[key] - before[key] for key in ("sent", "ok", "failed", "late", "new_connections")}
    return {
        **numbers,
        "causes": {key: count for key, count in causes.items() if count},
        "answers": {key: count for key, count in answers.items() if count},
    }
