"""What the role `proxy_host` refuses before anything is touched, what it undoes, and its units before systemd's own
judge, on copy-on-write machines. Its whole life is in `test_proxy_host.py`.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ansible.joining import SETTINGS, listening, lone_machine
from tests.ansible.kit import may_sandbox, module
from tests.ansible.roots import Root, Run, converge, may_make_roots, roots

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with lone_machine() as one:
        yield one


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
