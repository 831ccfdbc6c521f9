"""Naming the plugin in a network's configuration: what is written, what is refused, and that it can be taken back."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api import labels
from proxy.redirect.chain import Places, install, main, remove, waiting
from proxy.redirect.conflist import ConflistError, chained, in_use, restored, unchained
from proxy.redirect.plugin import ANNOTATIONS, ENTRY

NETWORK: Final[dict[str, Any]] = {
    "cniVersion": "0.4.0",
    "name": "net",
    "plugins": [{"type": "bridge", "ipam": {}}, {"type": "portmap"}],
}
TEXT: Final = json.dumps(NETWORK).encode()


def types(text: bytes) -> list[str]:
    return [each["type"] for each in json.loads(text)["plugins"]]


def test_the_plugin_comes_last_once_and_asks_for_the_annotations() -> None:
    once = chained(TEXT)
    assert types(once) == ["bridge", "portmap", "tulle-cni"]
    assert json.loads(once)["plugins"][-1] == {"type": "tulle-cni", "capabilities": {ANNOTATIONS: True}}
    assert chained(once) == once
    assert json.loads(unchained(once)) == NETWORK
    assert unchained(TEXT) == TEXT


def test_an_entry_of_an_older_release_is_replaced_and_moved_to_the_end() -> None:
    old = {**NETWORK, "plugins": [{"type": "tulle-cni", "old": True}, *NETWORK["plugins"]]}
    assert json.loads(chained(json.dumps(old).encode()))["plugins"][-1] == dict(ENTRY)
    assert types(chained(json.dumps(old).encode())) == ["bridge", "portmap", "tulle-cni"]


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3), lambda each: st.lists(each, max_size=2), max_leaves=3
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=2)


@settings(max_examples=30, deadline=None)
@given(OBJECTS, st.lists(OBJECTS, min_size=1, max_size=3), st.integers(0, 8))
def test_whatever_a_network_writes_comes_back_byte_for_byte(more: Any, plugins: Any, indent: int) -> None:
    listed = [{**each, "type": f"t{number}"} for number, each in enumerate(plugins)]
    text = json.dumps({**more, "cniVersion": "1.0.0", "plugins": listed}, indent=indent).encode()
    assert restored(chained(text), text) == text
    assert json.loads(restored(chained(text), None)) == json.loads(text)


def test_a_list_that_the_network_has_changed_meanwhile_is_not_put_back() -> None:
    newer = json.dumps({**NETWORK, "name": "newer"}).encode()
    assert json.loads(restored(chained(newer), TEXT))["name"] == "newer"
    assert types(restored(chained(newer), TEXT)) == ["bridge", "portmap"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a list of plugins"),
        (b'{"type": "bridge"}', "have the network write a .conflist"),
        (b'{"cniVersion": "1.0.0", "plugins": [{}]}', "a plugin without a type"),
        (b'{"cniVersion": "1.0.0", "plugins": {}}', "a plugin without a type"),
        (b'{"cniVersion": "1.0.0", "plugins": []}', "which makes no network"),
        (b'{"cniVersion": "1.0.0", "plugins": [{"type": "tulle-cni"}]}', "which makes no network"),
        (b'{"cniVersion": "0.2.0", "plugins": [{"type": "x"}]}', "cniVersion '0.2.0'"),
        (b'{"plugins": [{"type": "x"}]}', "cniVersion None"),
    ],
)
def test_what_cannot_be_chained_is_refused_with_the_way_out(text: bytes, words: str) -> None:
    with pytest.raises(ConflistError, match=words):
        chained(text)


def test_the_file_in_use_is_the_first_by_name() -> None:
    assert in_use(["99-a.conflist", "10-b.conflist", ".10-a.conflist", "00-readme.txt"]) == "10-b.conflist"
    assert in_use(["10-b.conflist", "05-c.conf"]) == "05-c.conf"
    assert in_use(["x.tulle-new"]) == ""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(*(tmp_path / name for name in ("conf", "bin", "state", "results")))
    for folder in (found.conf, found.plugins, found.results):
        folder.mkdir()
    program = found.plugins / "tulle-cni"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return found


def test_a_file_is_replaced_with_its_mode_and_comes_back_as_it_was(places: Places) -> None:
    path = places.conf / "10-net.conflist"
    path.write_bytes(TEXT)
    path.chmod(0o640)
    inode = path.stat().st_ino
    assert install(places, check=True)["changed"]
    assert path.read_bytes() == TEXT
    assert install(places, check=False)["changed"]
    assert types(path.read_bytes())[-1] == "tulle-cni"
    assert path.stat().st_ino != inode, "written in place: a runtime could read half of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not install(places, check=False)["changed"]
    assert os.listdir(places.conf) == ["10-net.conflist"]
    assert remove(places, check=True)["changed"]
    assert types(path.read_bytes())[-1] == "tulle-cni"
    assert remove(places, check=False)["changed"]
    assert path.read_bytes() == TEXT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not remove(places, check=False)["changed"]
    assert not places.originals.exists()


def test_a_network_that_rewrites_its_list_is_repaired_and_later_comes_back_as_it_wrote_it(places: Places) -> None:
    path = places.conf / "10-net.conflist"
    path.write_bytes(TEXT)
    install(places, check=False)
    newer = json.dumps({**NETWORK, "name": "newer"}, indent=7).encode()
    path.write_bytes(newer)
    assert install(places, check=False)["changed"]
    remove(places, check=False)
    assert path.read_bytes() == newer


def test_a_network_that_is_not_there_yet_is_waited_for(places: Places) -> None:
    found = install(places, check=False)
    assert not found["changed"]
    assert "no network configuration yet" in found["message"]


def test_a_plugin_that_is_not_there_is_never_named(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    (places.conf / "10-net.conflist").write_bytes(TEXT)
    (places.plugins / "tulle-cni").unlink()
    arguments = ["--conf-dir", str(places.conf), "--bin-dir", str(places.plugins)]
    assert main(["install", *arguments, "--results-dir", str(places.results)]) == 1
    assert "which is not there: run the role" in json.loads(capsys.readouterr().out)["message"]
    assert (places.conf / "10-net.conflist").read_bytes() == TEXT


def cached(annotations: dict[str, str], netns: str, **more: Any) -> str:
    """As libcni keeps a pod's result."""
    kept = {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "ifName": "eth0",
        "config": base64.b64encode(TEXT).decode(),
        "capabilityArgs": {ANNOTATIONS: annotations},
        "result": {"cniVersion": "0.4.0", "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": netns}]},
    }
    return json.dumps({**kept, **more})


def test_pods_that_wait_are_found_in_what_libcni_keeps(places: Places, tmp_path: Path) -> None:
    netns = tmp_path / "netns"
    netns.touch()
    marked = {labels.REDIRECT: "--mode nft"}
    for name, text in {
        "net-a-eth0": cached(marked, str(netns)),
        "net-b-eth0": cached({}, str(netns)),
        "net-c-eth0": cached(marked, str(tmp_path / "gone")),
        "net-d-eth0": cached(marked, str(netns), result={}),
        "net-e-eth0": "{",
        "cni-loopback-a-lo": cached(marked, str(netns), ifName="lo"),
        "net-f-eth0": cached(marked, "", containerId="c2").replace("{", f'{{"netns": "{netns}", ', 1),
    }.items():
        (places.results / name).write_text(text)
    calls = list(waiting(places))
    assert [environ["CNI_CONTAINERID"] for environ, _ in calls] == ["c1", "c2"]
    environ, config = calls[0]
    assert environ == {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": str(netns)}
    assert json.loads(config)["runtimeConfig"] == {ANNOTATIONS: marked}
    assert json.loads(config)["prevResult"]["interfaces"][1]["sandbox"] == str(netns)
