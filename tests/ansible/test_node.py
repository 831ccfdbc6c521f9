"""The role `node` on this machine's kernel, with files and settings of the test's own."""

import json
from pathlib import Path

import pytest

from tests.ansible.kit import changed, may_sandbox, message, playbook

pytestmark = pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")

PLAY = """---
- name: Prepare a machine
  hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: tulle.mesh.node
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with settings like a kernel's, all too low: real ones outside of `net` are the whole machine's."""
    for name in ("net/ipv4/ip_forward", "fs/inotify/max_user_instances"):
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text("0\n")
    return tmp_path


def arguments(machine: Path, **more: object) -> tuple[str, ...]:
    settings = {
        "node_modules_file": str(machine / "modules.conf"),
        "node_sysctl_file": str(machine / "sysctl.conf"),
        "node_sysctl_root": str(machine / "sys"),
        "node_report": str(machine / "report.json"),
        **more,
    }
    return ("-e", json.dumps(settings))


def test_a_second_run_changes_nothing(machine: Path, play: Path) -> None:
    looked = playbook(play, "--check", *arguments(machine))
    assert looked.returncode == 0, message(looked)
    assert (machine / "sys/net/ipv4/ip_forward").read_text() == "0\n"
    first = playbook(play, *arguments(machine))
    assert first.returncode == 0, message(first)
    assert changed(first) > 0
    report = json.loads((machine / "report.json").read_text())
    assert report["features"]["iptables_redirect"] is True
    assert report["iptables"] in ("nft", "legacy", "mixed")
    assert report["raised"] == {"net.ipv4.ip_forward": 1, "fs.inotify.max_user_instances": 1024}
    second = playbook(play, *arguments(machine, node_report=""))
    assert changed(second) == 0, message(second)


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "play.yml"
    path.write_text(PLAY)
    return path
