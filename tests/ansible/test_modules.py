"""The collection's modules, with arguments as Ansible checks them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.kit import load, may_sandbox, message, module, playbook

sysctl_floor = load("plugins/modules/sysctl_floor.py")
commands = load("plugins/modules/commands.py")
container_host = load("plugins/modules/container_host.py")

BUILD = """---
- name: Build Kubernetes
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Build it
      ansible.builtin.include_role:
        name: tulle.mesh.cluster
        tasks_from: build.yml
"""


class TestFiles:
    """Several files and links in one task."""

    def test_files_are_written_once_with_their_mode(self, tmp_path: Path) -> None:
        wanted = {"directory": str(tmp_path), "files": {"a/b.conf": "one\n"}, "links": {"bin": "a"}, "mode": "0600"}
        assert module("files", wanted, check=True)["changed"] is True
        assert list(tmp_path.iterdir()) == []
        first = module("files", wanted)
        assert first["written"] == ["a/b.conf", "bin"]
        assert (tmp_path / "bin/b.conf").read_text() == "one\n"
        assert (tmp_path / "a/b.conf").stat().st_mode & 0o777 == 0o600
        assert module("files", wanted)["changed"] is False

    def test_a_folder_in_a_links_place_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        answer = module("files", {"directory": str(tmp_path), "links": {"bin": "elsewhere"}})
        assert answer["msg"] == f"links: {tmp_path}/bin is there and is no link; move it away"

    def test_a_mode_that_is_none(self, tmp_path: Path) -> None:
        answer = module("files", {"directory": str(tmp_path), "mode": "rw"})
        assert answer["msg"] == "mode: 'rw' is not an octal number such as '0644'"


class TestSysctlFloor:
    """Settings are raised and never lowered."""

    @pytest.fixture
    def kernel(self, tmp_path: Path) -> Path:
        for name, value in {"net/low": "5", "net/high": "900", "net/two": "1 2"}.items():
            (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "sys" / name).write_text(f"{value}\n")
        return tmp_path

    def test_what_is_low_is_raised_and_nothing_else(self, kernel: Path) -> None:
        file = kernel / "sysctl.d/90-test.conf"
        floors = {"net.low": 100, "net.high": 100, "net.two": 100, "net.absent": 100}
        wanted = {"floors": floors, "file": str(file), "root": str(kernel / "sys")}
        assert module("sysctl_floor", wanted)["raised"] == {"net.low": 100}
        assert (kernel / "sys/net/low").read_text() == "100\n"
        assert (kernel / "sys/net/high").read_text() == "900\n"
        assert "net.low = 100" in file.read_text()
        assert "net.high" not in file.read_text()
        assert module("sysctl_floor", wanted)["changed"] is False
        # A later floor joins what is in the file.
        (kernel / "sys/net/high").write_text("7\n")
        module("sysctl_floor", wanted)
        assert sysctl_floor.kept(file) == {"net.low": (100, 5), "net.high": (100, 7)}
        # Somebody has changed one of them since: it stays.
        (kernel / "sys/net/low").write_text("300\n")
        undoing = {"file": str(file), "root": str(kernel / "sys"), "state": "absent"}
        assert module("sysctl_floor", undoing, check=True)["lowered"] == {"net.high": 7}
        assert module("sysctl_floor", undoing)["changed"] is True
        assert (kernel / "sys/net/low").read_text() == "300\n"
        assert (kernel / "sys/net/high").read_text() == "7\n"
        assert not file.exists()
        assert module("sysctl_floor", undoing)["changed"] is False

    def test_a_file_of_an_earlier_version_is_read(self, kernel: Path) -> None:
        file = kernel / "90-test.conf"
        file.write_text("# Written by Tulle: raised because it was lower, or switched on.\nnet.low = 100\n")
        assert sysctl_floor.kept(file) == {"net.low": (100, None)}

    def test_a_floor_that_is_no_number(self, kernel: Path) -> None:
        wanted = {"floors": {"net.low": "many"}, "file": str(kernel / "x.conf"), "root": str(kernel / "sys")}
        assert "floors: every value has to be a whole number" in module("sysctl_floor", wanted)["msg"]


class TestKernelFeatures:
    """Features are asked of the kernel; modules are loaded only for what is missing."""

    def test_what_works_needs_nothing(self, tmp_path: Path) -> None:
        probes = [{"name": "there", "path": "/proc/self", "modules": ["no-such-module"]}]
        answer = module("kernel_features", {"probes": probes, "persist": str(tmp_path / "modules.conf")})
        assert answer["features"] == {"there": True}
        assert answer["changed"] is False
        assert not (tmp_path / "modules.conf").exists()

    def test_what_is_missing_is_said(self) -> None:
        probes = [{"name": "absent", "path": "/proc/no/such/file", "modules": ["no-such-module"]}]
        answer = module("kernel_features", {"probes": probes})
        assert answer["features"] == {"absent": False}
        assert answer["complaints"] == {"absent": "/proc/no/such/file is not there"}
        assert answer["loaded"] == []

    def test_a_probe_without_a_way_to_ask(self) -> None:
        answer = module("kernel_features", {"probes": [{"name": "odd"}]})
        assert "command, path" in answer["msg"]


@pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")
class TestFreeSpace:
    """A small disk of its own, which really has no more room."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)

    def test_a_disk_that_is_too_small_is_named_with_the_way_out(self, small: Path) -> None:
        folder = small / "not/there/yet"
        wanted = {"path": str(folder), "gib": 2, "setting": "TULLE_CACHE"}
        assert module("free_space", {"wanted": [wanted]})["msg"] == (
            f"0.0 GiB free at {folder}, 2 GiB needed: free some, or set TULLE_CACHE to a folder on a larger disk"
        )
        assert list(small.iterdir()) == []

    def test_what_goes_to_one_disk_is_added_up(self, small: Path) -> None:
        wanted = [{"path": str(small / name), "gib": 0.0006, "setting": name.upper()} for name in ("state", "cache")]
        assert module("free_space", {"wanted": wanted[:1]})["changed"] is False
        answer = module("free_space", {"wanted": wanted})["msg"]
        assert f"{small}/state and {small}/cache" in answer
        assert "set STATE or CACHE to" in answer

    def test_images_are_not_begun(self, small: Path, tmp_path: Path) -> None:
        settings = json.dumps({"images_load": False})
        done = playbook("images.yml", "-e", settings, TULLE_CACHE=str(small), TULLE_STATE=str(tmp_path / "state"))
        assert done.returncode != 0
        assert f"0.0 GiB free at {small}, 4 GiB needed" in message(done)
        assert list(small.iterdir()) == []

    def test_kubernetes_is_not_begun(self, small: Path, tmp_path: Path) -> None:
        play = tmp_path / "build.yml"
        play.write_text(BUILD)
        done = playbook(play, TULLE_CACHE=str(small / "cache"), TULLE_STATE=str(small / "state"))
        assert done.returncode != 0
        assert f"0.0 GiB free at {small}/cache and {small}/state, 10 GiB needed" in message(done)
        assert "set TULLE_CACHE or TULLE_STATE to a folder on a larger disk" in message(done)
        assert list(small.iterdir()) == []


def test_missing_programs_are_named_by_their_packages() -> None:
    answer = module("commands", {"wanted": {"sh": "dash", "no-such-program": "imaginary"}})
    assert set(answer["found"]) == {"sh"}
    assert answer["packages"] == ["imaginary"]


def test_a_list_of_servers_that_lists_none(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    assert not container_host.has_servers(resolver)
    resolver.write_text("search example\n# nameserver 192.0.2.1\n")
    assert not container_host.has_servers(resolver)
    resolver.write_text("nameserver 192.0.2.1\n")
    assert container_host.has_servers(resolver)
