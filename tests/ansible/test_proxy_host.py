"""The role `proxy_host` on copy-on-write machines, as far as it needs no cluster: its units before systemd's own judge,
and every refusal before anything is touched. The whole of it is in `tests/kube/test_machine.py`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ansible.kit import may_sandbox, module
from tests.ansible.roots import Root, converge, may_make_roots, roots

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
import socket, time
listener = socket.create_server(("127.0.0.1", {port}))
print("ready", flush=True)
time.sleep(300)
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def refused(machine: Root, **more: Any) -> str:
    """What the role says to these settings; it must leave the machine as it was, in check mode too."""
    before = machine.state()
    looked = converge([machine], "proxy_host", {**SETTINGS, **more}, "--check")
    done = converge([machine], "proxy_host", {**SETTINGS, **more})
    assert looked.returncode != 0, looked.text
    assert done.returncode != 0, done.text
    assert machine.state() == before
    assert "never-to-be-seen" not in looked.text + done.text
    return done.text


def test_a_taken_port_is_named_with_who_has_it(machine: Root) -> None:
    with listening(machine, 4143):
        said = refused(machine)
    assert re.search(r"4143: taken by process \d+ \(python", said), said


def test_a_user_id_that_somebody_has(machine: Root) -> None:
    assert "user id 1 is daemon's" in refused(machine, proxy_host_uid=1)


def test_a_cluster_that_is_not_there(machine: Root) -> None:
    said = refused(machine, proxy_host_dns_server="127.0.0.9")
    assert "the cluster's name server 127.0.0.9:53 does not answer over TCP" in said


def test_no_token(machine: Root) -> None:
    assert "make one with 'tulle external token vm -n demo'" in refused(machine, proxy_host_token="")


def test_names_that_nobody_could_split(machine: Root) -> None:
    assert "set it to resolv_conf" in refused(machine, proxy_host_dns="auto")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"proxy_host_ports": ["http"]}, "proxy_host_ports"),
        ({"proxy_host_dns": "bind"}, "value of proxy_host_dns must be one of"),
    ],
)
def test_arguments_of_the_wrong_kind(machine: Root, wrong: dict[str, Any], words: str) -> None:
    assert words in refused(machine, **wrong)


def test_what_is_no_archive_is_undone(machine: Root, tmp_path: Path) -> None:
    (tmp_path / "images.tar").write_text("not an archive")
    before = machine.state()
    done = converge([machine], "proxy_host", {**SETTINGS, "proxy_host_archive": str(tmp_path / "images.tar")})
    assert done.returncode != 0
    assert "archive: /var/lib/tulle/proxy_host/images.tar" in done.text
    assert machine.state() == before


def test_leaving_what_was_never_joined_changes_nothing(machine: Root) -> None:
    done = converge([machine], "proxy_host", tasks="reset.yml")
    assert (done.returncode, done.changed) == (0, {"vm": 0}), done.text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="SKIPPED LOUDLY: needs systemd-analyze (systemd)")
def test_the_units_before_systemds_own_judge(machine: Root) -> None:
    done = converge([machine], "proxy_host", {**SETTINGS, "proxy_host_unit_folder": "/tmp/units"}, tasks="units.yml")
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
