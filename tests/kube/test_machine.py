"""A machine beside the cluster, for real: its own root and network, mount and process namespaces, with a cable to the
node. It joins by the role, calls and is called with mutual TLS, survives what it must, and leaves without a trace.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from components.cli import exposition
from components.deploy.refs import Ref
from proxy.api import labels
from tests.ansible.kit import BIN
from tests.ansible.roots import Root, Run, converge, may_make_roots, root
from tests.bench.root import state_folder
from tests.kit import objects
from tests.kit.apps import Apps, Client, since
from tests.kit.cluster import MESH, Kube, processes, total
from tests.kit.netns import Namespace, ip
from tests.kit.sidecar import ROOT
from tests.kit.waiting import until
from tests.kube.conftest import RUN_LABEL, begun

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")

NODE: Final = "198.18.77.1"
MACHINE: Final = "198.18.77.2"
"""Both ends of the cable, in the network that RFC 2544 sets aside for benchmarks."""
IDENTITY: Final = "{account}.{namespace}.serviceaccount.identity.tulle.cluster.local"
REFRESHES: Final = "control_identity_cert_refreshes_total"
ASK: Final = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode(), end='')"
Json = dict[str, Any]


@dataclass(frozen=True)
class World:
    """The machine, a namespace of the cluster, and what the role is told."""

    kube: Kube
    machine: Root
    namespace: str
    settings: Json

    def role(self, *arguments: str, tasks: str = "main", **more: Any) -> Run:
        return converge([self.machine], "proxy_host", {**self.settings, **more}, *arguments, tasks=tasks)

    def token(self) -> str:
        command = [str(BIN / "tulle"), "external", "token", "vm", "-n", self.namespace]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def workload(self) -> Json:
        found = self.kube.get(Ref("workload.linkerd.io/v1beta1", "ExternalWorkload", self.namespace, "vm"))
        assert found is not None
        return found

    def ask(self, url: str) -> str:
        """A request by a program of the machine."""
        return self.machine.run(f"{sys.executable} -c \"{ASK}\" {url}").stdout

    def asked(self, url: str) -> str:
        """The same, until it is answered."""

        def look() -> str | None:
            done = self.machine.run(f"{sys.executable} -c \"{ASK}\" {url}", check=False)
            return done.stdout if done.returncode == 0 else None

        return until(f"an answer of {url}", look, 60, 0.5)

    def metrics(self) -> str:
        return self.ask(f"http://127.0.0.1:{labels.ADMIN_PORT}/metrics")

    def identity(self, account: str) -> str:
        return IDENTITY.format(account=account, namespace=self.namespace)


@contextmanager
def cable(namespace: Namespace) -> Iterator[None]:
    """A link between this machine, which is the cluster's node, and a namespace, whose way out it is."""
    port = f"tulle-{secrets.token_hex(3)}"
    ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
    try:
        ip("address", "add", f"{NODE}/30", "dev", port)
        ip("link", "set", port, "up")
        ip("-n", namespace.name, "address", "add", f"{MACHINE}/30", "dev", "eth0")
        ip("-n", namespace.name, "link", "set", "eth0", "up")
        ip("-n", namespace.name, "route", "add", "default", "via", NODE)
        yield
    finally:
        ip("link", "delete", port)


@contextmanager
def application(machine: Root) -> Iterator[None]:
    """The machine's own program: the demo's, on port 8080."""
    command = machine.command("sh", "-c", f"cd {ROOT} && POD_NAME=vm exec {sys.executable} -m components.demo.api")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def export_image(kube: Kube, target: Path) -> None:
    """The proxy's image as the cluster has it."""
    found = kube.get(Ref("apps/v1", "Deployment", MESH, "destination"))
    assert found is not None
    spec = found["spec"]["template"]["spec"]
    every = [*(spec.get("initContainers") or []), *spec["containers"]]
    reference = next(each["image"] for each in every if each["name"] == labels.PROXY_CONTAINER)
    socket = state_folder() / "run" / "containerd" / "containerd.sock"
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "export", str(target), reference]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def world(kube: Kube, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    name = f"test-machine-{secrets.token_hex(3)}"
    manifest = objects.namespace(name, meshed=True)
    manifest["metadata"]["labels"][RUN_LABEL] = begun(str(os.getpid()))
    identity = IDENTITY.format(account="vm", namespace=name)
    workload = {
        "apiVersion": "workload.linkerd.io/v1beta1",
        "kind": "ExternalWorkload",
        "metadata": {"name": "vm", "namespace": name, "labels": {"app": "vm"}},
        "spec": {
            "meshTLS": {"identity": f"spiffe://cluster.local/ns/{name}/sa/vm", "serverName": identity},
            "workloadIPs": [{"ip": MACHINE}],
            "ports": [{"name": "serve", "port": 8080}],
        },
    }
    dns = kube.get(Ref("v1", "Service", "kube-system", "kube-dns"))
    bundle = kube.get(Ref("v1", "ConfigMap", MESH, labels.BUNDLE_CONFIG_MAP))
    assert dns is not None
    assert bundle is not None
    archive = tmp_path_factory.mktemp("image") / "images.tar"
    export_image(kube, archive)
    with ExitStack() as stack:
        kube.put(manifest)
        stack.callback(kube.remove_namespace, name)
        kube.put(workload, objects.service("vm", name, 8080))
        (web,) = Apps(kube, image).serve("api", name)
        network = Namespace("machine")
        stack.callback(network.close)
        stack.enter_context(cable(network))
        machine = stack.enter_context(root("vm", network))
        stack.enter_context(application(machine))
        server = dns["spec"]["clusterIP"]
        settings = {
            "proxy_host_name": "vm",
            "proxy_host_namespace": name,
            "proxy_host_address": MACHINE,
            "proxy_host_ports": [8080],
            "proxy_host_networks": [
                str(ip_network(f"{web['status']['podIP']}/24", strict=False)),
                str(ip_network(f"{server}/16", strict=False)),
            ],
            "proxy_host_archive": str(archive),
            "proxy_host_trust_bundle": bundle["data"][labels.BUNDLE_KEY],
            "proxy_host_dns_server": server,
            "proxy_host_dns": "resolv_conf",
            # Certificates are renewed by the minute instead of by the day, so that a test sees it.
            "proxy_host_settings": {"IDENTITY_MAX_REFRESH": "10s", "IDENTITY_MIN_REFRESH": "5s"},
        }
        yield World(kube, machine, name, settings)


def test_what_cannot_join_leaves_nothing(world: World) -> None:
    before = world.machine.state()
    guessed = world.role(proxy_host_token="not-the-token")
    assert guessed.returncode != 0
    words = f"this is not the join token of ExternalWorkload {world.namespace}/vm; make one with `tulle external token`"
    assert words in guessed.text, guessed.text
    away = world.role(proxy_host_token=world.token(), proxy_host_identity_address=f"{NODE}:1")
    assert away.returncode != 0
    assert f"identity at {NODE}:1 cannot be asked from here" in away.text, away.text
    assert world.machine.state() == before


@pytest.mark.timeout(600)
def test_a_machine_joins_serves_survives_and_leaves(world: World, image: str) -> None:
    kube, machine = world.kube, world.machine
    before = machine.state()
    assert "Ready" not in json.dumps(world.workload().get("status"))

    token = world.token()
    looked = world.role("--check", proxy_host_token=token)
    assert looked.returncode == 0, looked.text
    assert machine.state() == before, "check mode touched the machine"
    joined = world.role(proxy_host_token=token)
    assert joined.returncode == 0, joined.text
    assert token not in joined.text
    assert "systemd is not PID 1 here" in joined.text
    again = world.role()
    assert (again.returncode, again.changed) == (0, {"vm": 0}), again.text
    assert '"status": "True"' in json.dumps(world.workload()["status"]["conditions"])

    # It calls a meshed Service by name.
    url = f"http://api.{world.namespace}.svc.cluster.local:8080/"
    assert "api-" in world.asked(url)
    out = exposition.series(world.metrics(), "request_total")
    assert total(out, direction="outbound", tls="true", server_id=world.identity("default")) >= 1, out
    (pod,) = kube.ready_pods(world.namespace, "api")
    seen = exposition.series(kube.metrics(world.namespace, pod["metadata"]["name"]), "request_total")
    assert total(seen, direction="inbound", tls="true", client_id=world.identity("vm")) >= 1, seen

    # It is called by a meshed pod.
    client = Apps(kube, image).client(world.namespace, f"http://vm.{world.namespace}:8080/", rate=20, new=2)
    client.wait_for(ok=40)
    calls = exposition.series(kube.metrics(world.namespace, client.pod), "request_total")
    wanted = {"direction": "outbound", "tls": "true", "dst_external_workload": "vm", "server_id": world.identity("vm")}
    assert total(calls, **wanted) >= 40, calls
    served = exposition.series(world.metrics(), "request_total")
    assert total(served, direction="inbound", tls="true", client_id=world.identity("default")) >= 40, served

    rotated(world, client)
    crashed(world, client)
    without_a_control_plane(world, client)

    assert world.asked(url)
    left = world.role(tasks="reset")
    assert left.returncode == 0, left.text
    after = machine.state()
    assert after["rules"] == before["rules"]
    assert after["files"] == before["files"]
    assert after == before
    assert world.role(tasks="reset").changed == {"vm": 0}
    used = world.role(proxy_host_token=token)
    assert used.returncode != 0
    assert f"the join token of ExternalWorkload {world.namespace}/vm was used already" in used.text, used.text
    assert machine.state() == before


def renewals(world: World) -> float:
    found = exposition.series(world.metrics(), REFRESHES)
    return sum(value for each, value in found if each.get("result", "ok") == "ok")


def rotated(world: World, client: Client) -> None:
    """Two certificates more, and not one call the worse for it."""
    mark, count = client.counts(), renewals(world)
    until("two renewals", lambda: renewals(world) >= count + 2, 90, 1)
    seen = since(mark, client.counts())
    assert (seen["failed"], seen["ok"] > 0) == (0, True), seen


def crashed(world: World, client: Client) -> None:
    """The proxy is killed; the supervisor has another one, which goes on with the certificate that was kept."""
    kill(world)
    mark = client.counts()
    client.wait_for(ok=mark["ok"] + 40)
    until("no failure any more", lambda: quiet(client), 60, 0.5)


def without_a_control_plane(world: World, client: Client) -> None:
    """Identity and discovery are gone: what goes on goes on, and a proxy that is killed meanwhile comes back."""
    kube = world.kube
    replicas = {}
    for name in ("identity", "destination"):
        found = kube.get(Ref("apps/v1", "Deployment", MESH, name))
        assert found is not None
        replicas[name] = found["spec"]["replicas"]
    try:
        for name in replicas:
            kube.scale(MESH, name, 0)
        gone = "app.kubernetes.io/component in (identity,destination)"
        until("no such pod left", lambda: not kube.list("v1", "Pod", MESH, gone), 60)
        mark = client.counts()
        client.wait_for(ok=mark["ok"] + 40)
        assert since(mark, client.counts())["failed"] == 0
        kill(world)
        mark = client.counts()
        client.wait_for(ok=mark["ok"] + 40)
    finally:
        for name, count in replicas.items():
            kube.scale(MESH, name, count)
        for name in replicas:
            kube.rolled_out(MESH, name)


def kill(world: World) -> None:
    wanted = {"TULLE_PROXY_POD_NAME": "vm", "TULLE_PROXY_POD_NAMESPACE": world.namespace}
    found = [each for each in processes(wanted) if b"proxy" in Path(f"/proc/{each}/cmdline").read_bytes()]
    assert found, "no proxy process of the machine"
    for process in found:
        os.kill(process, signal.SIGKILL)


def quiet(client: Client) -> bool:
    mark = client.counts()
    time.sleep(1)
    seen = since(mark, client.counts())
    return bool(seen["ok"] and not seen["failed"])
