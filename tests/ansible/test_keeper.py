"""The keeper of the local cluster: what it refuses, and how it keeps processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.kit import COLLECTION, load, may_sandbox
from tests.kit.waiting import until

KEEPER = "roles/cluster/files/keeper"
settings_module = load(f"{KEEPER}/settings.py", "settings")
record = load(f"{KEEPER}/record.py", "record")
cgroups = load(f"{KEEPER}/cgroups.py", "cgroups")
network = load(f"{KEEPER}/network.py", "network")
checks = load(f"{KEEPER}/checks.py", "checks")
members = load(f"{KEEPER}/members.py", "members")
mounts = load(f"{KEEPER}/mounts.py", "mounts")
pods = load(f"{KEEPER}/pods.py", "pods")
commands = load(f"{KEEPER}/__main__.py", "keeper_commands")
# Only `python3 keeper` and this test import them by these names.
for name in ("settings", "record", "cgroups", "network", "checks", "members", "mounts", "pods"):
    del sys.modules[name]


def write_settings(state: Path, **changes: Any) -> Path:
    """The settings of a cluster that does not exist, with what a test is about."""
    content = {
        "state": str(state),
        "cgroup": "tulle-test",
        "bridge": "tulle-test0",
        "address": "192.0.2.1/24",
        "pod_subnet": "192.0.2.0/24",
        "service_subnet": "198.51.100.0/24",
        "binds": {},
        "shielded": [],
        "ports": {},
        "disk_gib": 0,
        "node": "tulle",
        "kubectl": ["false"],
        "ctr": ["false"],
        "members": [],
        **changes,
    }
    path = state / "cluster.json"
    path.write_text(json.dumps(content))
    (state / "log").mkdir(exist_ok=True)
    return path


def settings_of(state: Path, **changes: Any) -> Any:
    return settings_module.Settings.read(write_settings(state, **changes))


class TestChecks:
    """Each problem names the thing and the way out."""

    def test_a_port_in_use_names_its_holder_and_the_setting(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            port = taken.getsockname()[1]
            (problem,) = checks.ports(settings_of(tmp_path, ports={"api": port}))
        assert f"port {port} (api) is in use by" in problem
        assert f"(process {os.getpid()})" in problem
        assert problem.endswith("make up CLUSTER=cluster_port_api=PORT")

    def test_a_port_that_only_loopback_listens_on_is_free(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            assert checks.ports(settings_of(tmp_path, ports={"api": taken.getsockname()[1]})) == []

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage(100 * 2**30, 99 * 2**30, 2**30))
        (problem,) = checks.disk(settings_of(tmp_path, disk_gib=4))
        assert problem.startswith(f"1.0 GiB free at {tmp_path}, 4 GiB needed")
        assert "TULLE_STATE" in problem

    def test_a_subnet_that_the_machine_has_a_route_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        routes = [{"dst": "default", "dev": "eth0"}, {"dst": "192.0.0.0/16", "dev": "vpn0"}]
        monkeypatch.setattr(checks.network, "routes", lambda: routes)
        (problem,) = checks.subnets(settings_of(tmp_path))
        assert "pod subnet 192.0.2.0/24 overlaps this machine's route 192.0.0.0/16 (vpn0)" in problem
        assert problem.endswith("make up CLUSTER=cluster_pod_subnet=A.B.C.0/24")

    def test_our_own_bridge_is_not_in_the_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks.network, "routes", lambda: [{"dst": "192.0.2.0/24", "dev": "tulle-test0"}])
        assert checks.subnets(settings_of(tmp_path)) == []

    def test_another_clusters_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = subprocess.CompletedProcess([], 0, "table ip kube-proxy\n", "")
        monkeypatch.setattr(checks.network, "run", lambda *argv: listed)
        assert "another cluster's kube-proxy" in checks.tables()[0]

    def test_without_rights_nothing_else_is_looked_at(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks.os, "geteuid", lambda: 1000)
        monkeypatch.setattr(checks, "control_groups", lambda settings: [])
        (problem,) = checks.problems(settings_of(tmp_path, disk_gib=10**9))
        assert problem.startswith("not root")


class TestRecord:
    """What was made outside of the state folder is known before it is made."""

    def test_lists_are_kept_beside_each_other(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        assert record.read(settings, "folders") is None
        record.write(settings, "folders", ["/one"])
        record.write(settings, "tables before", [])
        assert record.read(settings, "folders") == ["/one"]
        assert record.read(settings, "tables before") == []


class TestProbes:
    """A member serves when its probe says so."""

    def test_a_socket_that_nobody_listens_on(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        member = settings_module.Member("one", ("true",), f"unix:{path}")
        assert not member.is_ready()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            assert member.is_ready()

    def test_a_member_without_a_probe_is_ready(self) -> None:
        assert settings_module.Member("one", ("true",)).is_ready()


def pod(uid: str, phase: str = "Running", **states: tuple[str, str]) -> dict[str, Any]:
    """A pod as the API server has it: for each container its state and its id."""
    entries = [
        {"name": name, "state": {state: {}}, **({"containerID": f"containerd://{identity}"} if identity else {})}
        for name, (state, identity) in states.items()
    ]
    status = {"phase": phase, "initContainerStatuses": entries[:1], "containerStatuses": entries[1:]}
    return {"metadata": {"namespace": "demo", "name": uid, "uid": uid}, "status": status}


class TestWhatIsSaidOfPods:
    """Until the kubelet has written anew, the API server tells of containers that are no more."""

    def test_a_container_that_runs_is_believed(self) -> None:
        said = [pod("web", proxy=("running", "aa"), app=("running", "bb"))]
        assert pods.disagreements(said, {"web"}, {"aa", "bb", "sandbox"}) == []

    def test_a_container_of_before_is_not(self) -> None:
        said = [pod("web", proxy=("running", "aa"), app=("running", "bb"))]
        assert pods.disagreements(said, {"web"}, {"bb"}) == [
            "pod demo/web: container proxy is said to run and does not"
        ]

    def test_a_pod_that_the_kubelet_does_not_know(self) -> None:
        (found,) = pods.disagreements([pod("web", app=("waiting", ""))], set(), set())
        assert found == "pod demo/web: the kubelet has not taken it up"

    @pytest.mark.parametrize("state", ["waiting", "terminated"])
    def test_a_container_that_is_not_said_to_run(self, state: str) -> None:
        assert pods.disagreements([pod("web", proxy=("terminated", "aa"), app=(state, ""))], {"web"}, set()) == []

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_a_pod_that_has_ended_is_nobodys(self, phase: str) -> None:
        assert pods.disagreements([pod("job", phase, app=("terminated", "aa"))], set(), set()) == []

    def test_only_running_tasks_run(self) -> None:
        listed = "TASK    PID     STATUS    \naa      4711    RUNNING\nbb      4712    STOPPED\n"
        assert pods.running_tasks(listed) == {"aa"}

    def test_no_answer_is_no_agreement(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, kubectl=["sh", "-c", "echo the server is gone >&2; exit 1"])
        assert pods.look(settings) == ["the server is gone"]

    def test_waiting_says_what_it_waits_for(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        # No keeper runs, so nothing is to be waited for.
        assert commands.settle(settings_of(tmp_path, kubectl=["sh", "-c", "echo gone >&2; exit 1"])) == 1
        said = capsys.readouterr().err
        assert "does not say what runs here: gone" in said
        assert str(tmp_path / "log/kubelet.log") in said


def weight(name: str) -> float:
    """What a cgroup weighs against its siblings, in units of what a new one does."""
    for hierarchy in cgroups.hierarchies():
        for file, default in (("cpu.shares", 1024), ("cpu.weight", 100)):
            if (hierarchy / name / file).exists():
                return int((hierarchy / name / file).read_text()) / default
    return 1


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
class TestBeginningAnew:
    """Of containers that nobody can find again nothing is left for the next start to stumble upon."""

    def test_orphans_and_the_cgroups_of_ended_containers_go(self, tmp_path: Path) -> None:
        name = f"tulle-test-{os.getpid()}"
        runtime = tmp_path / "containerd"
        settings = settings_of(tmp_path, cgroup=name, binds={"/run/containerd": str(runtime)})
        (runtime / "io.containerd.runtime.v2.task").mkdir(parents=True)
        cgroups.make(name)
        with subprocess.Popen(["sleep", "600"]) as orphan:
            try:
                for hierarchy in cgroups.hierarchies():
                    (hierarchy / name / "kubepods" / "pod1" / "ended").mkdir(parents=True)
                (cgroups.hierarchies()[0] / name / cgroups.SYSTEM / "cgroup.procs").write_text(str(orphan.pid))
                assert cgroups.processes(name) == [orphan.pid]
                assert weight(name) == os.cpu_count()
                assert mounts.home([orphan.pid]) is None
                commands.forget(settings)
                assert orphan.wait(timeout=5) == -signal.SIGKILL
            finally:
                orphan.kill()
                cgroups.remove(name)
        assert [folder for folder in cgroups.folders(name) if folder.exists()] == []
        assert not runtime.exists()


@pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")
def test_a_folder_that_another_cluster_mounts_on_stays(tmp_path: Path) -> None:
    """Removing it would take the other's mount away, from whatever runs there."""
    settings = settings_of(tmp_path)
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "mine").touch()
    record.write(settings, "folders", [str(folder)])
    script = f"mount --bind {other} {folder} && echo mounted && read line && ls {folder}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mounted\n"
        mounts.remove(settings)
        assert folder.is_dir()
        assert process.communicate("go on\n", timeout=20)[0] == "mine\n"
    mounts.remove(settings)
    assert not folder.exists()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """A real keeper of two processes: one that stays, and one that ends each time it is started."""
    path = write_settings(
        tmp_path,
        members=[
            {"name": "stays", "argv": ["sleep", "600"]},
            {"name": "ends", "argv": ["sh", "-c", f"echo once more >> {tmp_path}/starts; exit 7"]},
        ],
    )
    program = (
        f"import sys; sys.path.insert(0, {str(COLLECTION / KEEPER)!r}); sys.dont_write_bytecode = True; "
        "from pathlib import Path; import members, settings; "
        f"members.Keeper(settings.Settings.read(Path({str(path)!r}))).run()"
    )
    with open(tmp_path / "log/keeper.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)
    settings = settings_module.Settings.read(path)
    until("both members recorded", lambda: len(members.recorded(settings).get("members", {})) == 2, 20)
    yield settings, process
    if process.poll() is None:
        process.kill()
    process.wait()


def member_pid(settings: Any, name: str) -> int:
    return int(members.recorded(settings)["members"][name]["pid"])


class TestMembers:
    """Real processes, started, restarted and stopped."""

    def test_what_ends_is_started_again(self, keeper: tuple[Any, subprocess.Popen[bytes]]) -> None:
        settings, _ = keeper
        until("a second start", lambda: (settings.state / "starts").read_text().count("once more") >= 2, 20)
        assert "ends ended with 7" in (settings.logs / "keeper.log").read_text()

    def test_what_is_killed_is_started_again(self, keeper: tuple[Any, subprocess.Popen[bytes]]) -> None:
        settings, _ = keeper
        first = member_pid(settings, "stays")
        os.kill(first, signal.SIGKILL)
        until("a new process", lambda: member_pid(settings, "stays") != first, 20)
        assert members.birth(member_pid(settings, "stays")) is not None

    def test_stopping_leaves_nothing(self, keeper: tuple[Any, subprocess.Popen[bytes]]) -> None:
        settings, process = keeper
        pid = member_pid(settings, "stays")
        assert members.keeper_of(settings) == process.pid
        members.stop(settings, 10)
        process.wait(timeout=5)
        assert members.birth(pid) is None
        assert not settings.pids.exists()

    def test_members_go_with_a_keeper_that_is_killed(self, keeper: tuple[Any, subprocess.Popen[bytes]]) -> None:
        settings, process = keeper
        pid = member_pid(settings, "stays")
        process.kill()
        process.wait()
        until("the member gone", lambda: members.birth(pid) is None, 10)
        assert members.keeper_of(settings) is None

    def test_a_number_that_came_again_is_not_ours(self, tmp_path: Path) -> None:
        entry = {"pid": os.getpid(), "birth": "1"}
        assert members.living(entry) is None
        assert members.living({"pid": os.getpid(), "birth": members.birth(os.getpid())}) == os.getpid()
