"""Workloads in the mesh as Kubernetes sees them: a Job ends, and a pod is ready almost as soon as without a proxy."""

import statistics
import time

import pytest

from components.deploy.refs import Ref
from tests.kit import objects
from tests.kit.apps import Apps
from tests.kit.cluster import Kube
from tests.kit.waiting import slowness, until

ROUNDS = 5
EXTRA_SECONDS = 3.0


def test_a_job_in_a_meshed_namespace_completes(kube: Kube, image: str, meshed: str) -> None:
    Apps(kube, image).serve("api", meshed)
    env = {"TARGET": f"http://api.{meshed}:8080/", "RATE": "20", "DURATION_SECONDS": "3"}
    container = objects.container("work", image, ["python3", "-m", "components.demo.traffic"], env)
    kube.put(objects.job("work", meshed, [container]))

    def complete() -> bool:
        found = kube.get(Ref("batch/v1", "Job", meshed, "work")) or {}
        status = found.get("status") or {}
        assert not status.get("failed"), kube.story(meshed)
        return bool(status.get("succeeded"))

    until("the Job complete", complete, 90, 0.5)
    pods = kube.list("v1", "Pod", meshed, "app=work")
    assert any(c["name"] == "linkerd-proxy" for c in pods[0]["spec"]["initContainers"]), "it ran in the mesh"


def seconds_to_ready(kube: Kube, namespace: str, image: str, name: str) -> float:
    begun = time.monotonic()
    kube.put(objects.pod(name, namespace, [objects.app_container("api", image, {})]))
    until(
        f"{namespace}/{name} ready",
        lambda: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in kube.pods(namespace, name)
            for condition in pod["status"].get("conditions") or []
        ),
        60,
        0.05,
    )
    elapsed = time.monotonic() - begun
    kube.delete(Ref("v1", "Pod", namespace, name))
    return elapsed


@pytest.mark.timeout(900)
def test_a_meshed_pod_is_ready_within_3_seconds_of_its_unmeshed_time(
    kube: Kube, image: str, meshed: str, plain: str
) -> None:
    with_mesh, without = [], []
    for turn in range(ROUNDS):
        without.append(seconds_to_ready(kube, plain, image, f"plain-{turn}"))
        with_mesh.append(seconds_to_ready(kube, meshed, image, f"meshed-{turn}"))
    extra = statistics.median(with_mesh) - statistics.median(without)
    assert extra <= EXTRA_SECONDS * slowness(), f"meshed {with_mesh}, unmeshed {without}"


def test_two_ports_a_banner_and_bytes_over_raw_tcp(kube: Kube, image: str, meshed: str) -> None:
    """A server that speaks first works where its port is marked opaque, and its bytes come through unchanged."""
    apps = Apps(kube, image)
    opaque = {"config.linkerd.io/opaque-ports": "9000"}
    apps.serve("tcp_server", meshed, annotations=opaque, env={"BANNER": "hello"})
    target = f"tcp-server.{meshed}:9000"
    env = {"TARGET": target, "BANNER": "hello", "BYTES_PER_SECOND": "200000"}
    (client,) = apps.serve("tcp_client", meshed, env=env)

    def flowing() -> bool:
        counts = kube.counts(meshed, client["metadata"]["name"])
        assert counts["corrupted"] == 0, counts
        return bool(counts["received"] >= 500_000 and counts["connections"] == 1)

    until("half a megabyte echoed over one connection", flowing, 60)
    metrics = kube.metrics(meshed, client["metadata"]["name"])
    assert 'tls="true"' in "\n".join(
        line
        for line in metrics.splitlines()
        if line.startswith("tcp_write_bytes_total") and 'direction="outbound"' in line
    )
