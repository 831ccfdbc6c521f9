"""`tulle upgrade` on the cluster: real rollouts, real traffic, and success rates out of the mesh's own Prometheus.

A second name of the proxy's image stands for another version. A namespace that pins it by annotation has pods with it;
taking the annotation away makes all of them older than what they would get, and so does putting it back.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from components.deploy.refs import Ref
from components.deploy.target import local_kubeconfig
from components.injector.config import CONFIG_KEY, CONFIG_MAP
from components.upgrade.record import NAME
from components.upgrade.running import RESTARTED_AT
from components.upgrade.survey import proxy_image
from tests.kit import objects
from tests.kit.apps import Client, since
from tests.kit.cluster import MESH, Kube
from tests.kit.waiting import until

Json = dict[str, Any]
PINNED: Final = "config.linkerd.io/proxy-image"
OTHER: Final = "localhost/tulle/proxy:test-other"
NAMES: Final = ("api", "edge", "spare")
ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(kube: Kube) -> Iterator[tuple[str, str]]:
    """The proxy's image by both its names: the mesh's, and another one that this node knows too."""
    found = kube.get(Ref("v1", "ConfigMap", MESH, CONFIG_MAP))
    assert found is not None
    mesh = str(json.loads(found["data"][CONFIG_KEY])["proxy"]["image"])
    socket = local_kubeconfig(os.environ).parent / "run/containerd/containerd.sock"
    ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images"]
    subprocess.run([*ctr, "tag", "--force", mesh, OTHER], check=True, capture_output=True, timeout=60)
    yield mesh, OTHER
    subprocess.run([*ctr, "rm", OTHER], check=True, capture_output=True, timeout=60)


class Shop:
    """Three workloads in a namespace of their own, and a client that no wave restarts, since it is a pod alone."""

    def __init__(self, kube: Kube, namespace: str, image: str, mesh: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.mesh = mesh
        self.pin(OTHER)
        self.upstream(f"http://api.{namespace}:8080/")
        edge = objects.app_container("web", image, {})
        reference = {"configMapKeyRef": {"name": "edge", "key": "upstream"}}
        edge["env"].append({"name": "UPSTREAM", "valueFrom": reference})
        api = objects.app_container("api", image, {})
        for name, container in zip(NAMES, (api, edge, api), strict=True):
            kube.put(
                objects.deployment(name, namespace, [container], replicas=2), objects.service(name, namespace, 8080)
            )
        for name in NAMES:
            kube.ready_pods(namespace, name, 2, 180)
        env = {"TARGET": f"http://edge.{namespace}:8080/", "RATE": "50", "NEW_CONNECTIONS_PER_SECOND": "5"}
        kube.put(objects.pod("steady", namespace, [objects.app_container("traffic", image, env)]))
        (pod,) = kube.ready_pods(namespace, "steady")
        self.client = Client(kube, namespace, "steady", pod["status"]["podIP"])
        self.client.wait_for(ok=300)

    def pin(self, image: str | None) -> None:
        """The image that the namespace's new pods get; None for the mesh's."""
        self.kube.merge("v1", "Namespace", "", self.namespace, {"metadata": {"annotations": {PINNED: image}}})

    def upstream(self, url: str) -> None:
        """Where pods of `edge` that start from now on send their requests."""
        metadata = {"name": "edge", "namespace": self.namespace}
        self.kube.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"upstream": url}})

    def command(self, *more: str) -> list[str]:
        config = {
            "adoptedNamespaces": json.dumps([self.namespace]),
            "demo.enabled": "false",
            "images.refs": json.dumps({"proxy": self.mesh}),
            "upgrade.percent": "50",
            # Prometheus asks every 5 s; a shorter pause than a stack would have, so that the test is short.
            "prometheus.scrapeInterval": "3s",
            "upgrade.pause": "15s",
        }
        options = [part for key, value in config.items() for part in ("-c", f"{key}={value}")]
        return [sys.executable, "-m", "components.cli.main", "upgrade", "--stack", "local", *options, *more]

    def upgrade(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*more), cwd=ROOT, capture_output=True, text=True, timeout=400)

    def images(self) -> dict[str, set[str]]:
        """By workload, the images of its pods' proxies."""
        return {name: {proxy_image(pod) for pod in self.kube.pods(self.namespace, name)} for name in NAMES}

    def live(self, name: str) -> Json:
        found = self.kube.get(Ref("apps/v1", "Deployment", self.namespace, name))
        assert found is not None
        return found


@pytest.fixture
def shop(kube: Kube, image: str, meshed: str, images: tuple[str, str]) -> Iterator[Shop]:
    """Its pods have the other image, and would get the mesh's."""
    kube.delete(Ref("v1", "ConfigMap", MESH, NAME))
    made = Shop(kube, meshed, image, images[0])
    assert all(found == {OTHER} for found in made.images().values())
    made.pin(None)
    yield made
    kube.delete(Ref("v1", "ConfigMap", MESH, NAME))


@pytest.mark.timeout(900)
def test_a_wave_that_fails_requests_stops_the_upgrade_and_it_goes_on_once_that_is_mended(shop: Shop) -> None:
    shop.upstream(f"http://api.{shop.namespace}:8080/missing")
    plan = json.loads(shop.upgrade("--plan", "-o", "json").stdout)
    assert plan["waves"] == [["deployment/api", "deployment/edge"], ["deployment/spare"]]
    assert [each["owner"] for each in plan["left"]] == ["pod/steady"]

    stopped = shop.upgrade("--yes")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "the upgrade has stopped" in stopped.stderr
    assert "success fell from 100.0 %" in stopped.stderr
    assert shop.images() == {"api": {shop.mesh}, "edge": {shop.mesh}, "spare": {OTHER}}

    shop.upstream(f"http://api.{shop.namespace}:8080/")
    shop.kube.restart(shop.namespace, "edge")
    generation = shop.live("api")["metadata"]["generation"]
    resumed = shop.upgrade("--yes")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "going on with the upgrade" in resumed.stdout
    assert shop.images() == {name: {shop.mesh} for name in NAMES}
    assert shop.live("api")["metadata"]["generation"] == generation, "not restarted again"

    again = json.loads(shop.upgrade("--yes", "-o", "json").stdout)
    assert again["restarted"] == []


@pytest.mark.timeout(900)
def test_a_killed_upgrade_goes_on_where_it_was_and_no_request_fails(shop: Shop) -> None:
    before = shop.client.counts()
    generations = {name: shop.live(name)["metadata"]["generation"] for name in NAMES}
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(shop.command("--yes"), cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        begun = generations["edge"]
        until("the first wave's restart", lambda: shop.live("edge")["metadata"]["generation"] > begun, 120)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait(10)
    assert shop.images()["spare"] == {OTHER}

    resumed = shop.upgrade("--yes")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert shop.images() == {name: {shop.mesh} for name in NAMES}
    stamps = {shop.live(name)["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT] for name in NAMES}
    assert len(stamps) == 1
    for name in NAMES:
        assert shop.live(name)["metadata"]["generation"] == generations[name] + 1, f"{name} was restarted once"
    seen = since(before, shop.client.counts())
    assert seen["failed"] == 0, seen
    assert seen["ok"] > 1000
