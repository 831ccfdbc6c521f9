"""The whole life of the role `proxy_host` on a copy-on-write machine beside identity alone.

What it refuses beforehand is in `test_proxy_host_refusals.py`, a machine beside a real cluster in
`tests/kube/test_machine.py`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.ansible.joining import SETTINGS, lone_machine
from tests.ansible.kit import ROOT
from tests.ansible.roots import Root, converge, may_make_roots, prove
from tests.kit import own_image
from tests.kit.waiting import until

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with lone_machine() as one:
        yield one


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
    token = identity.offer()
    prove(machine, "proxy_host", {**mesh, "proxy_host_token": token}, meanwhile=lambda: comes_back(machine))
    undone(
        machine, {**mesh, "proxy_host_token": token}, f"{REFUSES}the join token of ExternalWorkload demo/vm was used"
    )


def comes_back(machine: Root) -> None:
    """A proxy that is killed is there again, and its rules stay."""
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


def undone(machine: Root, settings: dict[str, Any], words: str) -> None:
    """The machine does not join, is told why, and is what it was."""
    before = machine.state()
    done = converge([machine], "proxy_host", settings)
    assert done.returncode != 0
    assert words in done.text, done.text
    assert machine.state() == before


REFUSES: Final = "this machine did not join: proxy.joining: UNAUTHENTICATED: "


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"proxy_host_token": "wrong"}, f"{REFUSES}this is not the join token of ExternalWorkload demo/vm; make one"),
        ({"proxy_host_identity_address": "127.0.0.1:1"}, "identity at 127.0.0.1:1 cannot be asked from here"),
    ],
    ids=["token", "identity"],
)
def test_what_does_not_join_is_undone(machine: Root, mesh: dict[str, Any], wrong: dict[str, Any], words: str) -> None:
    undone(machine, {**mesh, **wrong}, words)


def proxy_of(machine: Root) -> str:
    """The process of the machine's proxy, as the machine numbers it."""
    look = "tr '\\0' ' ' < $each/cmdline | grep -q -- '-m proxy $' && echo ${each#/proc/}"
    return machine.run(f"for each in /proc/[0-9]*; do {look}; done", check=False).stdout.strip()


def nat(machine: Root) -> str:
    """The rules of table nat, without the comments that tell the time."""
    return machine.run("iptables-nft-save -t nat | grep -v '^#' | sed 's/ \\[.*//'").stdout


def ready(machine: Root) -> bool:
    return machine.run(f"{sys.executable} -m proxy.wait_ready --timeout 1", check=False).returncode == 0
