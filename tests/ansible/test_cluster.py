"""A whole cluster beside the user's: in a network namespace, with folders and a cgroup of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.ansible.kit import COLLECTION, changed, may_sandbox, message, playbook
from tests.kit.waiting import slowness, until

CGROUP: Final = "tulle-tests"
CACHE: Final = Path(
    os.environ.get("TULLE_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "~")) / ".cache") / "tulle"
)
FLOORS: Final = {"net.ipv4.ip_forward": 1, "net.bridge.bridge-nf-call-iptables": 1}
"""Settings of the sandbox's own network; the others are the whole machine's, and not this test's to raise."""


def why_not() -> str:
    if may_sandbox():
        return may_sandbox()
    if not list(CACHE.glob("kube/*/bin/kubectl")):
        return "Kubernetes is not built yet; `make up` builds it"
    return ""


pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs"), pytest.mark.timeout(1500)]


class Sandbox:
    """A network with nothing in it, and a state folder."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.inside = ("nsenter", "--target", str(holder), "--net")

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self.inside, *command], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def playbook(self, name: str, collection: Path = COLLECTION, **more: str) -> subprocess.CompletedProcess[str]:
        settings = {
            **more,
            "cluster_cgroup": CGROUP,
            "node_sysctl_floors": FLOORS,
            "node_sysctl_file": str(self.folder / "sysctl.conf"),
        }
        done = playbook(
            collection / "playbooks" / name,
            *("-e", json.dumps(settings)),
            before=self.inside,
            TULLE_STATE=str(self.state),
            ANSIBLE_CONFIG=str(collection / "ansible.cfg"),
        )
        assert done.returncode == 0, message(done)[-3000:]
        return done

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        program = str(self.state / "bin/kubectl")
        return self.run(program, f"--kubeconfig={self.state}/kubeconfig", *arguments, check=check)

    def pod(self, name: str) -> Any:
        return json.loads(self.kubectl("get", "pod", name, "--output=json", check=False) or "{}").get("status", {})

    def pid(self, *path: str) -> int:
        found = json.loads((self.state / "run/pids.json").read_text())
        for key in path:
            found = found[key]
        return int(found["pid"])

    def running(self, name: str, but: str) -> bool:
        """Whether a pod runs, in another container than this."""
        (status,) = self.pod(name)["containerStatuses"]
        return "running" in status["state"] and status["containerID"] != but

    def kill_everything(self) -> None:
        """SIGKILL to all processes of the cluster, containers and their shims too, until none is left."""

        def look() -> bool:
            lists = Path("/sys/fs/cgroup").glob(f"**/{CGROUP}/**/cgroup.procs")
            found = {pid for path in lists for pid in _read(path).split()}
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            return not found

        until("an end of all processes", look, 20)

    def networks(self) -> dict[str, int]:
        """The pods' networks, each held open: so its number cannot come to mean another one later."""
        own = os.readlink(f"/proc/{self.inside[2]}/ns/net")
        found: dict[str, int] = {}
        for path in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}/**/cgroup.procs"):
            for pid in _read(path).decode().split():
                with contextlib.suppress(OSError):
                    held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
                    name = f"net:[{os.fstat(held).st_ino}]"
                    if name == own or name in found:
                        os.close(held)
                    else:
                        found[name] = held
        return found

    def traces(self) -> dict[str, Any]:
        """All that a cluster could leave on a machine, outside of its folders."""
        return {
            "links": sorted(link["ifname"] for link in json.loads(self.run("ip", "-json", "link"))),
            "routes": self.run("ip", "route"),
            "rules": self.run("nft", "list", "ruleset"),
            "iptables": [
                line
                for program in ("iptables-nft-save", "iptables-legacy-save")
                for line in self.run(program, check=False).splitlines()
                if line.startswith("-")
            ],
            # In whatever mount namespace a process is left: what only a leftover one sees is a leftover too.
            "mounts": sorted(
                {
                    line
                    for path in Path("/proc").glob("[0-9]*/mountinfo")
                    for line in _read(path).decode(errors="replace").splitlines()
                    if str(self.state) in line
                }
            ),
            "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}")),
            "processes": sorted(
                path.parent.name
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if str(self.state).encode() in _read(path)
            ),
        }


def in_use(networks: set[str]) -> set[str]:
    """Those that a process is in, or that a mount keeps in whatever mount namespace."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(process / "ns/net"))
        found.update(line.split()[3] for line in _read(process / "mountinfo").decode(errors="replace").splitlines())
    return networks & found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    # pytest's own folder may be too deep for the address of a Unix socket.
    folder = tempfile.TemporaryDirectory(prefix="tulle-")
    with folder, subprocess.Popen(["unshare", "--net", "sleep", "3600"]) as holder:
        machine = os.readlink("/proc/self/ns/net")
        until("a network of its own", lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != machine, 10)
        made = Sandbox(Path(folder.name), holder.pid)
        made.run("ip", "link", "set", "lo", "up")
        try:
            yield made
        finally:
            if (made.state / "config/cluster.json").exists():
                made.playbook("reset.yml")
            holder.kill()


def manifest(image: str) -> str:
    """A pod of the sandbox image alone, with a port of the node that leads to it."""
    container = {
        "name": "pause",
        "image": image,
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": 80, "hostPort": 18080}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}}
    return yaml.safe_dump({**pod, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}})


def test_a_cluster_comes_stays_and_goes_without_a_trace(sandbox: Sandbox) -> None:
    before = sandbox.traces()

    sandbox.playbook("site.yml", cluster_port_api="7443")
    began = time.monotonic()
    again = sandbox.playbook("site.yml")
    assert changed(again) == 0, message(again)
    assert time.monotonic() - began < 60 * slowness()
    # The port was set once, and is what a client is told ever after.
    assert sandbox.kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}").endswith(":7443")

    # Another clone of these files finds the cluster, and leaves everything as it is.
    keeper = sandbox.pid("keeper")
    clone = sandbox.folder / "clone/ansible"
    shutil.copytree(COLLECTION, clone, symlinks=True)
    found = sandbox.playbook("site.yml", clone)
    assert changed(found) == 0, message(found)
    assert sandbox.pid("keeper") == keeper

    image = sandbox.run(
        *(
            "ctr",
            f"--address={sandbox.state}/run/containerd/containerd.sock",
            "--namespace=k8s.io",
            "images",
            "ls",
            "-q",
        )
    ).split()[0]
    (sandbox.folder / "pod.yaml").write_text(manifest(image))
    until("a token to run with", lambda: sandbox.kubectl("get", "serviceaccount", "default", check=False) != "", 30)
    sandbox.kubectl("apply", f"--filename={sandbox.folder}/pod.yaml")
    until("the pod running", lambda: sandbox.pod("one").get("phase") == "Running", 60)
    networks = sandbox.networks()
    assert in_use(set(networks)) == set(networks) != set()

    # A keeper that is killed takes its members along and leaves the containers; the next one finds them.
    os.kill(sandbox.pid("keeper"), signal.SIGKILL)
    container = sandbox.pod("one") or {}
    sandbox.playbook("site.yml")
    status = sandbox.pod("one")
    assert status["containerStatuses"][0]["restartCount"] == 0
    if container:
        assert status["containerStatuses"][0]["containerID"] == container["containerStatuses"][0]["containerID"]

    # Nothing survives the end of a machine, or of a container it lived in; what was said of the pod is not believed.
    container = sandbox.pod("one")["containerStatuses"][0]["containerID"]
    sandbox.kill_everything()
    sandbox.playbook("site.yml")
    status = sandbox.pod("one")["containerStatuses"][0]
    assert status.get("containerID") != container or "running" not in status["state"]
    until("the pod running again", lambda: sandbox.running("one", container), 30)

    # A member that is killed is back by itself.
    killed = sandbox.pid("members", "kube-scheduler")
    os.kill(killed, signal.SIGKILL)
    until("a new scheduler", lambda: sandbox.pid("members", "kube-scheduler") != killed, 20)

    networks.update(sandbox.networks())
    sandbox.playbook("reset.yml")
    assert not sandbox.state.exists()
    assert sandbox.traces() == before
    assert in_use(set(networks)) == set()
    for held in networks.values():
        os.close(held)


def test_the_program_is_named_by_its_sources() -> None:
    """A change in what is built must not be served by what was built before."""
    sources = COLLECTION / "roles/cluster/files/kube"
    named = yaml.safe_load((COLLECTION / "roles/cluster/vars/main.yml").read_text())["cluster_sources"]
    there = {
        path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.suffix in (".go", ".mod", ".sum")
    }
    assert set(named) == there
