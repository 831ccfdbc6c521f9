"""The CNI plugin on this machine as a node: pods of a namespace that enforces Pod Security `restricted` are meshed with
no right at all, the first one before the plugin is there; and with the plugin gone, the validator refuses.

What the role changes is put back at the end, and what is not marked is left alone meanwhile: the rest of the cluster
goes on beside it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from components.cli import exposition
from components.cli.inject import CONFIG_KEY, injector_configs
from components.deploy.target import local_kubeconfig
from proxy.api import labels
from tests.ansible.kit import ROOT, message, playbook
from tests.kit import objects
from tests.kit.apps import Client
from tests.kit.cluster import MESH, Kube, processes
from tests.kit.waiting import until

Json = dict[str, Any]
RESTRICTED: Final = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
ROOT_OF_PLUGIN: Final = "/var/lib/tulle/root/cni"


class Node:
    """This machine, as the local cluster's container runtime sees it."""

    def __init__(self, state: Path, image: str, archive: Path) -> None:
        self.state, self.archive = state, archive
        self.conflist = state / "config" / "cni" / "10-bridge.conflist"
        self.before = self.conflist.read_bytes()
        self.runtime = self._runtime()
        ctr = ["ctr", "--address", str(state / "run/containerd/containerd.sock"), "--namespace", "k8s.io"]
        subprocess.run([*ctr, "images", "export", str(archive), image], check=True, capture_output=True, timeout=120)

    def _runtime(self) -> int:
        """The process whose mount namespace has the cluster's folders under their usual names."""
        wanted = f"--config={self.state}/config/containerd.toml".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
            except OSError:
                continue
        raise AssertionError("the local cluster's container runtime does not run")

    def role(self, tasks: str = "main") -> str:
        """Run the role `cni` or another of its task files on this node; what it said."""
        role = {"name": "tulle.mesh.cni", "tasks_from": tasks}
        play = {"name": "Try it", "hosts": "localhost", "connection": "local", "gather_facts": False}
        plays = [{**play, "tasks": [{"name": "Run the role", "ansible.builtin.include_role": role}]}]
        settings = {"cni_archive": str(self.archive), "cni_bin_dir": "/usr/lib/cni"}
        before = ("nsenter", f"--target={self.runtime}", "--mount", f"--wdns={ROOT}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "play.yml")
            path.write_text(json.dumps(plays))
            done = playbook(path, "-e", json.dumps(settings), before=before)
        assert done.returncode == 0, message(done)
        return message(done)


@pytest.fixture(scope="module")
def proxy_image(kube: Kube) -> str:
    """The proxy's image of this work tree where it was built, else the one that the mesh runs."""
    built = ROOT / "build" / "images.json"
    found = json.loads(built.read_text()) if built.is_file() else {}
    return str(found.get("proxy") or json.loads(injector_configs(kube, MESH)[""])["proxy"]["image"])


@pytest.fixture
def node(proxy_image: str, tmp_path: Path) -> Iterator[Node]:
    found = Node(local_kubeconfig(os.environ).parent, proxy_image, tmp_path / "proxy.tar")
    assert b"tulle-cni" not in found.before, "the plugin is installed already: run the role's reset.yml first"
    try:
        yield found
    finally:
        found.role("reset")
        assert found.conflist.read_bytes() == found.before


@pytest.fixture
def inject(kube: Kube, proxy_image: str, tmp_path: Path) -> Callable[[Json], Json]:
    """`tulle inject --manual` with cni.enabled, and else the configuration of the mesh that runs."""
    config = json.loads(injector_configs(kube, MESH)[""])
    config["cniEnabled"] = True
    config["proxy"]["image"] = proxy_image
    path = tmp_path / CONFIG_KEY
    path.write_text(json.dumps(config))

    def run(manifest: Json) -> Json:
        command = [sys.executable, "-m", "components.cli.main", "inject", "--manual", "--config", str(path), "-"]
        text = yaml.safe_dump(manifest)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found: Json = yaml.safe_load(done.stdout)
        return found

    return run


def validator(pod: Json) -> Json:
    """How the validator of a pod has ended, last of all times."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    found = [each for each in statuses if each["name"] == labels.VALIDATOR_CONTAINER]
    ends = [(each.get(when) or {}).get("terminated") for each in found for when in ("state", "lastState")]
    return next((each for each in ends if each), {})


def refused(kube: Kube, namespace: str, app: str) -> Json:
    """Wait until a pod is refused; it is told what to do, and an Event says the same."""

    def look() -> Json | None:
        (pod,) = kube.pods(namespace, app) or [{}]
        return pod if validator(pod).get("exitCode") == labels.EXIT_NOT_REDIRECTED else None

    pod = until(f"{app} refused by its validator", look, 60)
    said = validator(pod)["message"]
    assert "IPv4 is not redirected (to 192.0.2.1 port 20001: " in said
    assert "Run the Ansible role tulle.mesh.cni on node tulle" in said

    def told() -> Json | None:
        found = [each for each in kube.events(namespace) if each["reason"] == "NotRedirected"]
        return next((each for each in found if each["involvedObject"]["uid"] == pod["metadata"]["uid"]), None)

    event = until("an Event on the refused pod", told, 30)
    assert event["type"] == "Warning"
    assert "Run the Ansible role tulle.mesh.cni on node tulle" in event["message"]
    return pod


def rules(pod: Json) -> str:
    """The nat table of a pod, seen from its node."""
    found = processes({"POD_NAME": pod["metadata"]["name"]})
    assert found, pod["metadata"]["name"]
    command = ["nsenter", f"--target={found[0]}", "--net", "iptables-save", "-t", "nat"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.timeout(240)
def test_pods_are_meshed_with_no_right_at_all(
    kube: Kube, image: str, node: Node, inject: Callable[[Json], Json], new_namespace: Callable[[bool], str]
) -> None:
    namespace, other = new_namespace(False), new_namespace(True)
    kube.merge("v1", "Namespace", "", namespace, {"metadata": {"labels": RESTRICTED}})

    # The first pod on a node without the plugin: admitted, and refused by its validator.
    server = objects.deployment("api", namespace, [objects.app_container("api", image, {})])
    kube.put(inject(server), objects.service("api", namespace, objects.PORTS["api"]))
    first = refused(kube, namespace, "api")

    said = node.role()
    assert "the plugin was added to the list" in said
    assert b'"tulle-cni"' in node.conflist.read_bytes()
    # The same pod, not another one: its rules were set by the role, and the kubelet tried the validator again.
    (pod,) = kube.ready_pods(namespace, "api", seconds=90)
    assert pod["metadata"]["uid"] == first["metadata"]["uid"]
    again = node.role()
    assert re.search(r"localhost : ok=\d+ changed=0 ", again), again

    # The next pod is redirected by the plugin. Its requests have mutual TLS, and are counted as such.
    env = {"TARGET": f"http://api.{namespace}:8080/", "RATE": "20", "NEW_CONNECTIONS_PER_SECOND": "1"}
    kube.put(inject(objects.deployment("traffic", namespace, [objects.app_container("traffic", image, env)])))
    (caller,) = kube.ready_pods(namespace, "traffic", seconds=60)
    assert validator(caller)["exitCode"] == 0
    client = Client(kube, namespace, caller["metadata"]["name"], caller["status"]["podIP"])
    counts = client.wait_for(ok=100)
    assert counts["failed"] == 0, counts
    metrics = kube.metrics(namespace, pod["metadata"]["name"])
    identity = f"default.{namespace}.serviceaccount.identity.tulle.cluster.local"
    with_tls = [
        value
        for found, value in exposition.series(metrics, "request_total")
        if found.get("direction") == "inbound" and found.get("tls") == "true" and found.get("client_id") == identity
    ]
    assert sum(with_tls) >= 100, metrics
    for each in (pod, caller):
        text = json.dumps(each["spec"])
        assert "NET_ADMIN" not in text
        assert labels.INIT_CONTAINER not in text
        assert rules(each).count("-j PROXY_INIT_") == 2

    # Pods that are not marked are left alone: one outside the mesh, and one with the init container.
    kube.put(objects.pod("plain", namespace, [objects.idle_container("app", image)]))
    kube.put(objects.pod("usual", other, [objects.idle_container("app", image)]))
    (plain,) = kube.ready_pods(namespace, "plain", seconds=60)
    assert "PROXY_INIT" not in rules(plain)
    (usual,) = kube.ready_pods(other, "usual", seconds=60)
    assert labels.REDIRECT not in usual["metadata"]["annotations"]

    # Without the image's root, meshed pods alone are held up, and told why.
    link = Path(f"{ROOT_OF_PLUGIN}.inside")
    hidden = link.rename(f"{ROOT_OF_PLUGIN}.hidden")
    try:
        kube.put(inject(objects.pod("late", namespace, [objects.idle_container("app", image)])))
        kube.put(objects.pod("still-plain", namespace, [objects.idle_container("app", image)]))
        kube.ready_pods(namespace, "still-plain", seconds=60)

        def told() -> list[str]:
            return [each["message"] for each in kube.events(namespace) if each["reason"] == "FailedCreatePodSandBox"]

        (complaint, *_) = until("an Event on the pod without a network", told, 60)
        assert f"does not run from {ROOT_OF_PLUGIN}" in complaint
    finally:
        hidden.rename(link)

    # With the plugin removed the list is what it was, running pods go on, and new ones are refused.
    node.role("reset")
    assert node.conflist.read_bytes() == node.before
    assert not Path("/usr/lib/cni/tulle-cni").exists()
    kube.put(inject(objects.pod("refused", namespace, [objects.idle_container("app", image)])))
    refused(kube, namespace, "refused")
    seen = client.counts()
    later = client.wait_for(ok=seen["ok"] + 20)
    assert later["failed"] == 0, later
