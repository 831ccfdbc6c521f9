"""The CNI plugin and the validator in a real kernel: a network namespace stands for a pod, this process's own for the
node.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.api import labels
from proxy.redirect.plugin import ANNOTATIONS
from tests.mesh.test_redirect_apply import BACKENDS, UID, Namespace, pod, pod_and_neighbour, pytestmark, saved

__all__ = ["pod", "pod_and_neighbour", "pytestmark"]

WORDS: Final = "--inbound-port 4143 --outbound-port 4140 --proxy-uid 2102 --inbound-skip-ports 9000"


def call(
    pod: Namespace, command: str, words: str | None, mode: str = "auto", **environ: str
) -> tuple[int, dict[str, Any] | None]:
    """As a runtime calls a plugin: environment, configuration on standard input, an answer on standard output."""
    annotations = {} if words is None else {labels.REDIRECT: f"{words} --mode {mode}"}
    config = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "tulle-cni",
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.2/24"}, {"address": "fd99::2/64"}]},
        "runtimeConfig": {ANNOTATIONS: annotations},
    }
    variables = {
        "CNI_COMMAND": command,
        "CNI_NETNS": f"/proc/{pod.process.pid}/ns/net",
        "CNI_CONTAINERID": "c",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "proxy.redirect.cni"],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables, **environ},
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_meshed_pod_is_redirected_in_both_directions_and_both_ip_versions(
    pod_and_neighbour: tuple[Namespace, Namespace], backend: str
) -> None:
    pod, neighbour = pod_and_neighbour
    code, result = call(pod, "ADD", WORDS, backend)
    assert code == 0
    assert result is not None
    assert [each["address"] for each in result["ips"]] == ["10.99.0.2/24", "fd99::2/64"]
    pod.listen(4140, 4143, 9000)
    neighbour.listen(80)
    for here, there in (("10.99.0.2", "10.99.0.3"), ("fd99::2", "fd99::3")):
        assert pod.ask(there, 80) == {"port": 4140, "original": [there, 80]}
        assert pod.ask(there, 80, UID)["port"] == 80
        assert neighbour.ask(here, 8080) == {"port": 4143, "original": [here, 8080]}
        assert neighbour.ask(here, 9000)["port"] == 9000
    assert call(pod, "CHECK", WORDS, backend) == (0, None)
    assert call(pod, "DEL", WORDS, backend) == (0, None)


def test_the_plugin_sets_what_the_init_container_sets(pod: Namespace) -> None:
    assert pod.redirect(*WORDS.split(), "--mode", "nft").returncode == 0
    by_init = saved(pod, "nft")
    assert call(pod, "CHECK", WORDS, "nft")[0] == 0
    assert call(pod, "ADD", WORDS, "nft")[0] == 0
    assert saved(pod, "nft") == by_init


def test_a_pod_that_is_not_marked_passes_untouched(pod: Namespace) -> None:
    before = saved(pod, "nft")
    code, result = call(pod, "ADD", None)
    assert code == 0
    assert result is not None
    assert saved(pod, "nft") == before
    assert "PROXY_INIT" not in before


def test_check_finds_that_rules_are_gone(pod: Namespace) -> None:
    assert call(pod, "ADD", WORDS, "nft")[0] == 0
    pod.run("ip6tables-nft", "-t", "nat", "-F", "PROXY_INIT_OUTPUT")
    code, error = call(pod, "CHECK", WORDS, "nft")
    assert code == 1
    assert error is not None
    assert "IPv6 is not redirected" in error["msg"]


def test_rules_of_one_ip_version_alone_are_taken_back(pod: Namespace, tmp_path: Path) -> None:
    """The second of two transactions fails: what the first has set must not stay."""
    for name in ("iptables-nft-save", "iptables-nft-restore"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    code, error = call(pod, "ADD", WORDS, "auto", PATH=str(tmp_path))
    assert code == 1
    assert error is not None
    assert error["code"] == 100
    assert "none of ip6tables-nft" in error["msg"]
    assert "PROXY_INIT" not in saved(pod, "nft")


def validate(pod: Namespace, *arguments: str, ips: str = "10.99.0.2,fd99::2") -> subprocess.CompletedProcess[str]:
    """As in a pod: a user of its own, no capability."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "needs setpriv (util-linux)"
    # As every pod has it: what has no way out is not sent at all.
    pod.run("ip", "route", "replace", "default", "via", "10.99.0.3")
    pod.run("ip", "-6", "route", "replace", "default", "via", "fd99::3")
    drop = [setpriv, "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [sys.executable, "-m", "proxy.redirect.validate", *arguments]
    return pod.run("env", f"POD_IPS={ips}", "NODE_NAME=node-1", *drop, *command, check=False)


def test_the_validator_lets_a_redirected_pod_start_without_any_right(pod: Namespace) -> None:
    assert call(pod, "ADD", WORDS)[0] == 0
    done = validate(pod)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "redirected to port 4140: IPv4, IPv6\n"


def test_the_validator_refuses_a_pod_that_is_not_redirected_and_says_what_to_do(pod: Namespace) -> None:
    done = validate(pod, "--timeout", "1")
    assert done.returncode == 95
    assert done.stderr.count("\n") == 1
    assert "IPv4 is not redirected (to 192.0.2.1 port 20001: " in done.stderr
    assert "IPv6 is not redirected (to 2001:db8::1 port 20001: " in done.stderr
    assert "Run the Ansible role tulle.mesh.cni on node node-1" in done.stderr


def test_the_validator_asks_for_both_ip_versions(pod: Namespace) -> None:
    assert call(pod, "ADD", WORDS)[0] == 0
    pod.run("ip6tables-nft", "-t", "nat", "-F", "PROXY_INIT_OUTPUT")
    done = validate(pod, "--timeout", "1")
    assert done.returncode == 95
    assert "IPv6" in done.stderr
    assert "IPv4" not in done.stderr
    assert validate(pod, "--timeout", "1", ips="10.99.0.2").returncode == 0


def test_the_validator_dials_a_port_that_is_not_skipped_and_keeps_trying(pod: Namespace) -> None:
    words = f"{WORDS} --outbound-skip-ports 20001-20010"
    assert call(pod, "ADD", words)[0] == 0
    assert validate(pod, "--outbound-skip-ports", "20001-20010", "--timeout", "1").returncode == 0
    refused = validate(pod, "--timeout", "1")
    assert "port 20001" in refused.stderr
