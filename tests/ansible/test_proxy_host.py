"""The role `proxy_host` on copy-on-write machines, without a cluster: the whole life of it beside identity alone, its
units before systemd's own judge, and every refusal before anything is touched. A machine beside a real cluster is in
`tests/kube/test_machine.py`.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ansible.kit import ROOT, may_sandbox, module
from tests.ansible.roots import Root, Run, converge, may_make_roots, prove, roots
from tests.kit import own_image
from tests.kit.waiting import until

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")

SETTINGS: Final[dict[str, Any]] = {
    "proxy_host_name": "vm",
    "proxy_host_namespace": "demo",
    "proxy_host_address": "192.0.2.10",
    "proxy_host_ports": [8080],
    "proxy_host_networks": ["10.0.0.0/8"],
    "proxy_host_archive": "/nowhere/images.tar",
    "proxy_host_trust_bundle": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----",
    "proxy_host_dns_server": "127.0.0.1",
    "proxy_host_dns": "none",
    "proxy_host_token": "never-to-be-seen",
}
LISTEN: Final = """
import socket, sys
listener = socket.create_server(("127.0.0.1", {port}))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with roots("vm") as (one,):
        one.run("ip link set lo up")
        with listening(one, 53):
            yield one


@contextmanager
def listening(machine: Root, port: int) -> Iterator[None]:
    """Somebody on a port of a machine."""
    command = machine.command(sys.executable, "-c", LISTEN.format(port=port))
    # It ends with its input: a signal would reach the program that entered the machine, and not what it started there.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.stdin.close()


REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "port": ({}, r"4143: taken by process \d+ \(python"),
    "user": ({"proxy_host_uid": 1}, r"user id 1 is daemon's"),
    "away": ({"proxy_host_dns_server": "127.0.0.9"}, r"name server 127\.0\.0\.9:53 does not answer over TCP"),
    "token": ({"proxy_host_token": ""}, r"make one with 'tulle external token vm -n demo'"),
    "names": ({"proxy_host_dns": "auto"}, r"set it to resolv_conf"),
    "ports": ({"proxy_host_ports": ["http"]}, r"proxy_host_ports"),
    "dns": ({"proxy_host_dns": "bind"}, r"value of proxy_host_dns must be one of"),
}
"""What is wrong with each of some machines, and what is said of it."""


@pytest.fixture(scope="module")
def refusals() -> tuple[Run, Run]:
    """Check mode, and then the role itself, on all of these machines at once; none of them is touched."""
    with ExitStack() as stack:
        machines = stack.enter_context(roots(*REFUSED))
        for one in machines:
            one.run("ip link set lo up")
            stack.enter_context(listening(one, 53))
        stack.enter_context(listening(machines[list(REFUSED).index("port")], 4143))
        before = [one.state() for one in machines]
        hosts = {name: {**SETTINGS, **more} for name, (more, _) in REFUSED.items()}
        looked = converge(machines, "proxy_host", None, "--check", hosts=hosts)
        done = converge(machines, "proxy_host", hosts=hosts)
        assert [one.state() for one in machines] == before
    return looked, done


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_on_that_machine_before_anything_is_touched(
    refusals: tuple[Run, Run], name: str
) -> None:
    for run in refusals:
        assert name in run.failed, run.text
        (said,) = (piece for piece in run.text.split("fatal: [") if piece.startswith(f"{name}]"))
        assert re.search(REFUSED[name][1], said), run.text
        assert "never-to-be-seen" not in run.text


def test_what_is_no_archive_is_undone(machine: Root, tmp_path: Path) -> None:
    (tmp_path / "images.tar").write_text("not an archive")
    before = machine.state()
    done = converge([machine], "proxy_host", {**SETTINGS, "proxy_host_archive": str(tmp_path / "images.tar")})
    assert done.returncode != 0
    assert "archive: /var/lib/tulle/proxy_host/images.tar" in done.text
    assert machine.state() == before


class Identity:
    """Identity on a machine's own loopback."""

    def __init__(self, machine: Root) -> None:
        inside = f"cd {ROOT} && exec {sys.executable} -m tests.kit.lone_identity"
        command = machine.command("sh", "-c", inside)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.bundle, self.token = self._read()

    def _read(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        # The log goes to standard output too.
        line = next(line for line in self.process.stdout if line.startswith("{"))
        said = json.loads(line)
        return said["bundle"], said["token"]

    def offer(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()[1]


@pytest.fixture(scope="module")
def identity(machine: Root) -> Iterator[Identity]:
    found = Identity(machine)
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def mesh(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings by which a machine joins beside that identity."""
    archive = tmp_path_factory.mktemp("image") / "images.tar"
    own_image.write(archive)
    return {
        **SETTINGS,
        "proxy_host_archive": str(archive),
        "proxy_host_trust_bundle": identity.bundle,
        "proxy_host_service_account": "machine",
        "proxy_host_identity_address": "127.0.0.1:8080",
        "proxy_host_destination_address": "127.0.0.1:8086",
        "proxy_host_dns": "resolv_conf",
    }


def test_the_whole_life_of_it(machine: Root, mesh: dict[str, Any], identity: Identity) -> None:
    prove(machine, "proxy_host", {**mesh, "proxy_host_token": identity.offer()})


def test_a_proxy_that_is_killed_comes_back(machine: Root, mesh: dict[str, Any], identity: Identity) -> None:
    before = machine.state()
    joined = converge([machine], "proxy_host", {**mesh, "proxy_host_token": identity.offer()})
    assert joined.returncode == 0, joined.text
    assert "systemd is not PID 1 here: the proxy runs under /etc/tulle/proxy_host/supervise" in joined.text
    rules = nat(machine)
    assert "-A PROXY_INIT_OUTPUT -d 10.0.0.0/8 -p tcp" in rules, rules
    assert "8080" in rules
    status = machine.run(f"grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/{proxy_of(machine)}/status").stdout.split()
    assert status[status.index("Uid:") + 1] == "2102"
    assert status[status.index("CapEff:") + 1] == status[status.index("CapBnd:") + 1] == "0" * 16
    assert status[status.index("NoNewPrivs:") + 1] == "1"
    kept = machine.run("stat -c '%a %u' /var/lib/tulle/proxy_host/identity/identity").stdout
    assert kept == "600 2102\n"
    old = proxy_of(machine)
    machine.run(f"kill -9 {old}")
    until("another proxy that is ready", lambda: proxy_of(machine) not in ("", old) and ready(machine), 60, 0.5)
    assert nat(machine) == rules
    left = converge([machine], "proxy_host", mesh, tasks="reset")
    assert left.returncode == 0, left.text
    assert machine.state() == before


@pytest.mark.parametrize("spent", [True, False])
def test_a_token_that_does_not_count_is_undone(
    machine: Root, mesh: dict[str, Any], identity: Identity, spent: bool
) -> None:
    before = machine.state()
    token = "wrong"
    if spent:
        token = identity.offer()
        assert converge([machine], "proxy_host", {**mesh, "proxy_host_token": token}).returncode == 0
        assert converge([machine], "proxy_host", mesh, tasks="reset").returncode == 0
    done = converge([machine], "proxy_host", {**mesh, "proxy_host_token": token})
    assert done.returncode != 0
    words = "the join token of ExternalWorkload demo/vm was used already; make another one"
    if not spent:
        words = "this is not the join token of ExternalWorkload demo/vm; make one with `tulle external token`"
    assert f"this machine did not join: proxy.joining: UNAUTHENTICATED: {words}" in done.text, done.text
    assert machine.state() == before


def test_identity_that_does_not_answer_is_undone(machine: Root, mesh: dict[str, Any]) -> None:
    before = machine.state()
    done = converge([machine], "proxy_host", {**mesh, "proxy_host_identity_address": "127.0.0.1:1"})
    assert done.returncode != 0
    assert "identity at 127.0.0.1:1 cannot be asked from here" in done.text, done.text
    assert machine.state() == before


def proxy_of(machine: Root) -> str:
    """The process of the machine's proxy, as the machine numbers it."""
    look = "tr '\\0' ' ' < $each/cmdline | grep -q -- '-m proxy $' && echo ${each#/proc/}"
    return machine.run(f"for each in /proc/[0-9]*; do {look}; done", check=False).stdout.strip()


def nat(machine: Root) -> str:
    """The rules of table nat, without the comments that tell the time."""
    return machine.run("iptables-nft-save -t nat | grep -v '^#' | sed 's/ \\[.*//'").stdout


def ready(machine: Root) -> bool:
    return machine.run(f"{sys.executable} -m proxy.wait_ready --timeout 1", check=False).returncode == 0


def test_leaving_what_was_never_joined_changes_nothing(machine: Root) -> None:
    done = converge([machine], "proxy_host", tasks="reset")
    assert (done.returncode, done.changed) == (0, {"vm": 0}), done.text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="SKIPPED LOUDLY: needs systemd-analyze (systemd)")
def test_the_units_before_systemds_own_judge(machine: Root) -> None:
    done = converge([machine], "proxy_host", {**SETTINGS, "proxy_host_unit_folder": "/tmp/units"}, tasks="units")
    assert done.returncode == 0, done.text
    units = [f"/tmp/units/tulle-{name}.service" for name in ("proxy", "redirect")]
    verified = machine.run(f"systemd-analyze verify --man=no {' '.join(units)}", check=False)
    complaints = [line for line in (verified.stdout + verified.stderr).splitlines() if "tulle" in line]
    assert complaints == []
    for unit in units:
        judged = machine.run(f"systemd-analyze security --no-pager --offline=true --threshold=30 {unit}", check=False)
        assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr


@pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")
def test_ports_that_are_free_are_nobodys() -> None:
    assert module("taken_ports", {"ports": [1]}) == {"changed": False, "taken": {}}
