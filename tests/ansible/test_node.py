"""The role `node` and its playbooks on machines of their own: what it does, undoes, and refuses beforehand.

Two machines of one inventory: what is wrong with one stops that one alone.
"""

import datetime
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.nodes.judging import NodesError, judge
from components.requirements import node_requirements
from tests.ansible.roots import Root, Run, converge, may_make_roots, prove, root, roots, run
from tests.iac.kit import arguments

pytestmark = pytest.mark.skipif(bool(may_make_roots()), reason=may_make_roots() or "runs")

ARCH = 'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\n'
LOW = """
echo 128 >/proc/sys/fs/inotify/max_user_instances
echo 0 >/proc/sys/net/ipv4/ip_forward
rm -f /etc/sysctl.d/90-tulle.conf /etc/modules-load.d/tulle.conf
"""


@pytest.fixture
def pair() -> Iterator[tuple[Root, Root]]:
    with roots("good", "bad") as (good, bad):
        for each in (good, bad):
            each.run(LOW)
        yield good, bad


@contextmanager
def api_server(machine: Root, seconds_off: float) -> Iterator[str]:
    """Whoever answers as an API server to strangers does, 401 and all, inside the machine; its clock may be off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds_off)
            return f"{now:%a, %d %b %Y %H:%M:%S GMT}"

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = machine.namespace.within(lambda: HTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused_alone(done: Run, *words: str) -> None:
    """The bad one was refused in one message, and the good one went on."""
    assert done.failed == {"bad"}, done.text
    for word in (*words, "Why it matters:", "What to do:"):
        assert word in done.text, (word, done.text)
    assert done.text.count("fatal: [") == 1
    assert done.text.count('"msg": "bad is not fit for the mesh, and was not touched: ') == 1


def test_it_converges_changes_nothing_twice_and_goes_without_a_trace() -> None:
    with root("node") as machine:
        machine.run(LOW)
        before = machine.settings()
        prove(machine, "node", {"node_conntrack_per_processor": 400_000})
        assert machine.settings() == before


def test_an_unknown_distribution_stops_that_machine_alone_and_check_mode_says_the_same(pair: tuple[Root, Root]) -> None:
    good, bad = pair
    bad.write("/etc/os-release", ARCH)
    before = good.state(), bad.state()
    looked = run(pair, "site.yml", None, "--check")
    refused_alone(looked, "the distribution Arch Linux (ID=arch) is not one of Debian, Ubuntu, RHEL and its like, SUSE")
    assert (good.state(), bad.state()) == before
    done = run(pair, "site.yml")
    refused_alone(done, "the distribution Arch Linux (ID=arch)")
    assert bad.state() == before[1]
    assert done.changed["good"] > 0
    assert good.read("/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert "net.ipv4.ip_forward = 1" in good.read("/etc/sysctl.d/90-tulle.conf")
    again = run([good], "site.yml")
    assert again.changed["good"] == 0, again.text
    undone = run([good], "reset.yml")
    assert undone.returncode == 0, undone.text
    assert good.state() == before[0]


def test_what_fails_while_machines_are_changed_stops_the_next_wave(pair: tuple[Root, Root]) -> None:
    good, bad = pair
    before = good.state()
    # Nothing that a look could tell: the report is the last thing that is written.
    settings = {"node_report": "{{ '/proc/nowhere/report.json' if inventory_hostname == 'bad' else '' }}"}
    done = run((bad, good), "site.yml", settings)
    assert done.failed == {"bad"}, done.text
    assert good.state() == before
    # A wave that fails as a whole ends the play in any case: both are in one now.
    done = run((bad, good), "site.yml", {**settings, "mesh_serial": "100%", "mesh_max_fail_percentage": 100})
    assert done.failed == {"bad"}
    assert done.changed["good"] > 0


def test_rules_in_both_backends(pair: tuple[Root, Root]) -> None:
    _, bad = pair
    bad.run("iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -A OUTPUT -j KUBE-SERVICES")
    if bad.run("iptables-legacy -A INPUT -p tcp --dport 9 -j ACCEPT", check=False).returncode:
        # The kernel here has no tables of the old kind: a program that says what theirs would be stands for them.
        rules = "*filter\\n:INPUT ACCEPT [0:0]\\n-A INPUT -p tcp -m tcp --dport 9 -j ACCEPT\\nCOMMIT\\n"
        bad.run("rm /usr/sbin/iptables-legacy-save; mkdir -p /run/legacy; echo filter >/run/legacy/names")
        bad.write("/usr/sbin/iptables-legacy-save", f"#!/bin/sh\nprintf '{rules}'\n", "755")
        bad.run("mount --bind /run/legacy/names /proc/net/ip_tables_names")
    before = bad.state()
    done = converge(pair, "node")
    refused_alone(done, "iptables-nft and iptables-legacy both hold rules; those of Kubernetes are in nft")
    assert "see 'iptables-legacy-save'" in done.text
    assert bad.state() == before
    accepted = converge([bad], "node", {"node_iptables_mixed": "accept"}, "--check")
    assert accepted.returncode == 0, accepted.text
    assert "bad: iptables-nft and iptables-legacy both hold rules" in accepted.text


def test_a_kernel_that_cannot(pair: tuple[Root, Root]) -> None:
    _, bad = pair
    # As a kernel without the match says it; all else is asked of the real program.
    lacking = "echo 'Extension owner revision 0 not supported, missing kernel module?' >&2; exit 4"
    script = f'#!/bin/sh\ncase "$*" in *REDIRECT*) {lacking};; esac\nexec /usr/sbin/iptables "$@"\n'
    bad.write("/usr/local/sbin/iptables", script, "755")
    before = bad.state()
    done = converge(pair, "node", {"node_load_modules": False})
    refused_alone(done, "the kernel has no iptables_redirect", "missing kernel module?", "xt_owner")
    assert bad.state() == before


def test_a_clock_that_is_off_and_a_cluster_that_does_not_answer(pair: tuple[Root, Root]) -> None:
    good, bad = pair
    before = bad.state()
    with api_server(good, 0) as right, api_server(bad, 90) as wrong:
        urls = f"{{{{ '{right}' if inventory_hostname == 'good' else '{wrong}' }}}}"
        done = converge(pair, "node", {"node_api_url": urls})
        refused_alone(done, "the clock is 90 s behind the API server's", "certificates are valid from 5 s before")
        assert bad.state() == before
        small = converge([bad], "node", {"node_api_url": wrong, "node_clock_skew_seconds": 120}, "--check")
        assert small.returncode == 0, small.text
        assert "no time daemon" in small.text
    gone = converge([bad], "node", {"node_api_url": wrong}, "--check")
    assert f"the API server {wrong} does not answer: [Errno 111] Connection refused" in gone.text
    assert gone.failed == {"bad"}


def test_a_read_only_root_matters_only_where_there_is_something_to_write(pair: tuple[Root, Root]) -> None:
    _, bad = pair
    bad.seal()
    before = bad.state()
    done = converge(pair, "node")
    refused_alone(
        done, "/etc/sysctl.d is on a read-only file system", "put it into the machine's image (", "ip_forward = 1"
    )
    assert bad.state() == before
    bad.run("echo 1024 >/proc/sys/fs/inotify/max_user_instances; echo 1 >/proc/sys/net/ipv4/ip_forward")
    floors = {"net.ipv4.ip_forward": 1, "fs.inotify.max_user_instances": 1024}
    fine = converge([bad], "node", {"node_sysctl_floors": floors, "node_conntrack_per_processor": 1})
    assert fine.returncode == 0, fine.text
    assert fine.changed["bad"] == 0


def test_a_port_that_somebody_has(pair: tuple[Root, Root]) -> None:
    _, bad = pair
    listener = bad.namespace.listen(("127.0.0.1", 4143))
    try:
        done = converge(pair, "node", {"node_free_ports": [4140, 4143]}, "--check")
        refused_alone(done, "port 4143 is taken by")
        ours = converge([bad], "node", {"node_free_ports": [4143], "node_proxy_uids": [0]}, "--check")
        assert ours.returncode == 0, ours.text
    finally:
        listener.close()


def test_verify_reports_all_of_them_and_the_stack_reads_it(pair: tuple[Root, Root], tmp_path: Path) -> None:
    good, bad = pair
    requirements = node_requirements(arguments("prod"))
    path = tmp_path / "build/nodes-report.json"
    with roots("lost") as (lost,):
        pass
    with api_server(good, 0) as url:
        ready = converge([good], "node")
        assert ready.returncode == 0, ready.text
        settings = {"mesh_stack": "prod", "mesh_report": str(path), "node_api_url": url}
        done = run([good, bad, lost], "verify.yml", {**settings, "node_sysctl_floors": {"net.ipv4.ip_forward": 1}})
    assert done.failed == {"bad", "lost"}, done.text
    found = json.loads(path.read_text())
    assert found["requirements"] == requirements["hash"]
    nodes = found["nodes"]
    assert nodes["good"]["ok"] is True
    assert nodes["good"]["facts"]["clock"]["skewSeconds"] < 1
    assert {each["name"] for each in nodes["bad"]["problems"]} == {"setting", "cluster"}
    assert nodes["lost"]["problems"][0]["name"] == "unreachable"
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    with pytest.raises(NodesError, match=r"2 of 3 nodes are not fit.*\n  bad: .*\n  lost: it cannot be reached"):
        judge(path.read_text(), requirements["hash"], "prod", str(path), now, day)
    found["nodes"] = {"good": nodes["good"]}
    assert judge(json.dumps(found), requirements["hash"], "prod", str(path), now, day) == ["good"]
