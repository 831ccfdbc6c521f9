"""The whole life of the role `proxy_host` on a copy-on-write machine beside identity alone.

What it refuses beforehand is in `test_proxy_host_refusals.py`, what does not join in `test_proxy_host_undone.py`, a
machine beside a real cluster in `tests/kube/test_machine.py`.
"""

import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.ansible.joining import REFUSES, Identity, beside, lone_machine, undone
from tests.ansible.roots import Root, may_make_roots, prove
from tests.kit.waiting import until

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with lone_machine() as one:
        yield one


@pytest.fixture(scope="module")
def identity(machine: Root) -> Iterator[Identity]:
    found = Identity(machine)
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def mesh(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return beside(identity, tmp_path_factory.mktemp("image"))


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


def proxy_of(machine: Root) -> str:
    """The process of the machine's proxy, as the machine numbers it."""
    look = "tr '\\0' ' ' < $each/cmdline | grep -q -- '-m proxy $' && echo ${each#/proc/}"
    return machine.run(f"for each in /proc/[0-9]*; do {look}; done", check=False).stdout.strip()


def nat(machine: Root) -> str:
    """The rules of table nat, without the comments that tell the time."""
    return machine.run("iptables-nft-save -t nat | grep -v '^#' | sed 's/ \\[.*//'").stdout


def ready(machine: Root) -> bool:
    return machine.run(f"{sys.executable} -m proxy.wait_ready --timeout 1", check=False).returncode == 0
