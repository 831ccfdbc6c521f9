"""The role `cni`: the program that a container runtime calls, and the role on a copy-on-write machine.

In place of an unpacked image stand launchers that run this work tree's own Python: what the image adds is proven on a
cluster (`tests/kube/test_cni.py`).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api import labels
from proxy.redirect.cni import answer
from proxy.redirect.plugin import ANNOTATIONS
from tests.ansible.kit import COLLECTION, ROOT
from tests.ansible.roots import Root, converge, may_make_roots, prove, root
from tests.mesh.test_redirect_apply import Namespace

TEMPLATES: Final = COLLECTION / "roles" / "cni" / "templates"
PYTHON: Final = f'#!/bin/sh\nexport PYTHONPATH={ROOT}\nexec {sys.executable} "$@"\n'
INSIDE: Final = f'#!/bin/sh\nshift 2\ncd {ROOT} && exec {sys.executable} "$@"\n'
"""Without `python3 -I`: the packages are in a work tree, and not where an image has them."""
NETWORK: Final = '{"cniVersion": "0.4.0", "name": "net", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}\n'
RESULT: Final = {"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.2/24"}]}
OTHERS: Final = {"default/namespace": 'br{ok}en: "quoted\\" ]'}

needs_roots = pytest.mark.skipif(bool(may_make_roots()), reason=may_make_roots() or "runs")


def rendered(name: str, **variables: Any) -> str:
    text: str = jinja2.Template((TEMPLATES / name).read_text(), keep_trailing_newline=True).render(**variables)
    return text


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as the role installs it, and a root that runs."""
    folder = tmp_path_factory.mktemp("node")
    path = folder / "tulle-cni"
    path.write_text(rendered("tulle-cni.j2", cni_root=str(folder / "cni")))
    path.chmod(0o755)
    (folder / "cni.inside").write_text(INSIDE)
    (folder / "cni.inside").chmod(0o755)
    return path


def config(annotations: Any = None, **more: Any) -> dict[str, Any]:
    runtime = {} if annotations is None else {"runtimeConfig": {ANNOTATIONS: annotations}}
    return {"cniVersion": "1.0.0", "name": "net", "type": "tulle-cni", "prevResult": RESULT, **runtime, **more}


def call(
    program: Path, command: str, given: Any, netns: str = "/proc/self/ns/net"
) -> tuple[int, dict[str, Any] | None]:
    """As a runtime calls it, which hands on its whole environment."""
    text = given if isinstance(given, str) else json.dumps(given)
    environ = {**os.environ, "CNI_COMMAND": command, "CNI_NETNS": netns}
    done = subprocess.run([str(program)], input=text, capture_output=True, text=True, timeout=60, env=environ)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if done.stdout else None


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(max_size=5), each, max_size=2),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.booleans(), st.integers(0, 2), st.booleans())
def test_a_pod_that_is_not_meshed_gets_its_networks_own_result(
    program: Path, result: dict[str, Any], escaped: bool, indent: int, last: bool
) -> None:
    given = config(OTHERS, prevResult=result, note='prevResult": {')
    if last:
        given["prevResult"] = given.pop("prevResult")
    text = json.dumps(given, ensure_ascii=escaped, indent=indent or None)
    assert call(program, "ADD", text) == (0, result)


def test_a_root_that_is_gone_is_the_trouble_of_meshed_pods_alone(tmp_path: Path) -> None:
    path = tmp_path / "tulle-cni"
    path.write_text(rendered("tulle-cni.j2", cni_root="/var/lib/nowhere/cni"))
    path.chmod(0o755)
    assert call(path, "ADD", config(OTHERS)) == (0, RESULT)
    for command in ("DEL", "GC", "STATUS", "CHECK"):
        assert call(path, command, config(OTHERS), "") == (0, None)
    assert call(path, "DEL", config({labels.REDIRECT: "--mode auto"})) == (0, None)
    code, error = call(path, "ADD", config({labels.REDIRECT: "--mode auto"}))
    assert code == 1
    assert error is not None
    assert error["code"] == 100
    assert "does not run from /var/lib/nowhere/cni" in error["msg"]
    assert "run the Ansible role tulle.mesh.cni" in error["msg"]


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_it_tells_the_versions_that_the_images_program_tells(program: Path, version: str) -> None:
    text = json.dumps({"cniVersion": version})
    assert call(program, "VERSION", text) == answer({"CNI_COMMAND": "VERSION"}, text.encode())


def test_what_is_missing_is_refused_by_its_name(program: Path) -> None:
    for command, asked, netns, words in (
        ("ADD", config(prevResult=None), "/proc/self/ns/net", "prevResult is missing"),
        ("ADD", config({labels.REDIRECT: "--mode auto"}), "/nowhere", "CNI_NETNS is '/nowhere'"),
        ("ADD", config({labels.REDIRECT: "--mode auto"}), "/proc/self/ns/net", "is the node's own"),
        ("ADD", config({labels.REDIRECT: "--mode magic"}), "/proc/self/ns/net", "invalid choice: 'magic'"),
        ("EAT", config(), "", "CNI_COMMAND is 'EAT'"),
    ):
        code, error = call(program, command, asked, netns)
        assert code == 1
        assert error is not None
        assert words in error["msg"], error
        assert error["cniVersion"] == "1.0.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED LOUDLY: network namespaces need root")
def test_a_meshed_pod_is_redirected_through_it(program: Path) -> None:
    pod = Namespace()
    try:
        netns = f"/proc/{pod.process.pid}/ns/net"
        marked = config({labels.REDIRECT: "--mode nft"})
        assert call(program, "CHECK", marked, netns)[0] == 1
        assert call(program, "ADD", marked, netns) == (0, RESULT)
        assert call(program, "CHECK", marked, netns) == (0, None)
        assert "PROXY_INIT_REDIRECT" in pod.run("iptables-nft-save", "-t", "nat").stdout
    finally:
        pod.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="SKIPPED LOUDLY: needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    (tmp_path / "cni.python").write_text(PYTHON)
    (tmp_path / "cni.python").chmod(0o755)
    given = {"cni_chain": [str(tmp_path / "cni.python"), "-m", "x"], "cni_places": [], "cni_conf_dir": "/etc/cni/net.d"}
    for name in ("tulle-cni.service", "tulle-cni.path"):
        (tmp_path / name).write_text(rendered(f"{name}.j2", **given))
    units = [str(tmp_path / name) for name in ("tulle-cni.path", "tulle-cni.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    about_ours = [line for line in done.stderr.splitlines() if "tulle-cni" in line]
    assert not about_ours


SETTINGS: Final = {"cni_root": "/srv/root/cni", "cni_bin_dir": "/opt/cni/bin"}
CONFLIST: Final = "/etc/cni/net.d/10-net.conflist"


@pytest.fixture
def machine() -> Iterator[Root]:
    with root("one") as made:
        made.run("mkdir -p /srv/root /opt/cni/bin /etc/cni/net.d")
        made.write("/srv/root/cni.python", PYTHON, "755")
        made.write("/srv/root/cni.inside", INSIDE, "755")
        yield made


def listed(machine: Root) -> list[str]:
    return [each["type"] for each in json.loads(machine.read(CONFLIST))["plugins"]]


@needs_roots
def test_the_role_is_idempotent_and_leaves_the_machine_as_it_was(machine: Root) -> None:
    machine.write(CONFLIST, NETWORK, "640")
    prove(machine, "cni", SETTINGS)
    assert machine.read(CONFLIST) == NETWORK


@needs_roots
def test_a_network_that_comes_later_or_writes_anew_is_repaired_by_another_run(machine: Root) -> None:
    early = converge([machine], "cni", SETTINGS)
    assert early.returncode == 0, early.text
    assert "has no network configuration yet" in early.text
    machine.write(CONFLIST, NETWORK)
    first = converge([machine], "cni", SETTINGS)
    assert first.changed["one"] == 1, first.text
    assert listed(machine) == ["bridge", "portmap", "tulle-cni"]
    newer = NETWORK.replace("bridge", "cilium-cni")
    machine.write(CONFLIST, newer)
    looked = converge([machine], "cni", SETTINGS, "--check")
    assert looked.changed["one"] == 1, looked.text
    assert machine.read(CONFLIST) == newer
    converge([machine], "cni", SETTINGS)
    assert listed(machine) == ["cilium-cni", "portmap", "tulle-cni"]
    undone = converge([machine], "cni", SETTINGS, tasks="reset")
    assert undone.returncode == 0, undone.text
    assert machine.read(CONFLIST) == newer


@needs_roots
@pytest.mark.parametrize(
    ("changes", "network", "words"),
    [
        ({"cni_bin_dir": "/opt/nowhere"}, NETWORK, "cni_bin_dir is '/opt/nowhere', and that is no folder"),
        ({"cni_root": "/srv/nowhere/cni"}, NETWORK, "/srv/nowhere/cni.python is not there"),
        ({}, "{", "10-net.conflist is not JSON"),
        ({}, '{"cniVersion": "1.0.0", "type": "bridge"}', "is not a list of plugins"),
        ({"cni_repair": "perhaps"}, NETWORK, "cni_repair"),
    ],
)
def test_what_cannot_be_is_refused_before_a_pod_is_touched(
    machine: Root, changes: dict[str, str], network: str, words: str
) -> None:
    machine.write(CONFLIST, network)
    done = converge([machine], "cni", {**SETTINGS, **changes})
    assert done.failed == {"one"}, done.text
    assert words in done.text
    assert machine.read(CONFLIST) == network
