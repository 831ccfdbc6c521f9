"""The machines that roles are tried on: what is done in one reaches neither this machine nor the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.roots import Root, converge, may_make_roots, roots

pytestmark = pytest.mark.skipif(bool(may_make_roots()), reason=may_make_roots() or "runs")

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Root, ...]]:
    with roots("one", "two") as made:
        yield made


def test_what_changes_is_told(pair: tuple[Root, ...]) -> None:
    one, two = pair
    before = one.state()
    assert before["files"] == {}
    one.write("/etc/new", "text\n")
    one.run("rm /etc/hostname; chmod 600 /etc/passwd; mv /etc/skel /etc/bones; touch /etc/group")
    changes = one.files()
    assert changes["/etc/new"].startswith("-rw-r--r-- 0:0 ")
    assert changes["/etc/hostname"] == changes["/etc/skel"] == "gone"
    assert changes["/etc/passwd"].startswith("-rw------- ")
    assert "/etc/group" not in changes
    assert two.files() == {}
    assert not Path("/etc/new").exists()
    one.run("mv /etc/bones /etc/skel; rm /etc/new; chmod 644 /etc/passwd")
    assert set(one.files()) == {"/etc/hostname"}
    one.run("rm -r /etc/skel; mkdir /etc/skel")
    assert one.files()["/etc/skel/.profile"] == "gone"


def test_rules_and_settings_are_the_machines_own(pair: tuple[Root, ...]) -> None:
    _, two = pair
    before, here = two.state(), INSTANCES.read_text()
    two.run("iptables -t nat -A OUTPUT -p tcp --dport 9 -j REDIRECT --to-ports 10")
    two.run("echo 77 >/proc/sys/fs/inotify/max_user_instances; echo 99 >/proc/sys/net/netfilter/nf_conntrack_max")
    state = two.state()
    assert any("redirect to :10" in line for line in state["rules"])
    assert state["settings"]["fs/inotify/max_user_instances"] == "77"
    assert INSTANCES.read_text() == here
    two.run("nft flush ruleset")
    two.run(f"echo {before['settings']['fs/inotify/max_user_instances']} >/proc/sys/fs/inotify/max_user_instances")
    assert two.state()["rules"] == before["rules"]


def test_a_machine_that_is_gone_is_unreachable() -> None:
    with roots("first") as (first,):
        pass
    assert converge([first], "node").unreachable == {"first"}
