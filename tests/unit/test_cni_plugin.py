"""The CNI plugin's decisions: which pods it acts on, what it answers, how it refuses."""

import json
from typing import Any, Final

import pytest

from proxy.api import labels
from proxy.redirect.cni import answer
from proxy.redirect.plugin import ANNOTATIONS, VERSIONS, Nothing, PluginError, Redirect, decide
from tests.unit.test_injector_patch import CASES

RESULT: Final[dict[str, Any]] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod"}],
    "ips": [{"address": "10.0.0.2/24", "interface": 0}],
}
WORDS: Final = "--inbound-port 4143 --outbound-port 4140 --proxy-uid 2102 --inbound-skip-ports 4190,4191 --mode nft"


def config(annotations: Any = None, **more: Any) -> bytes:
    runtime = {} if annotations is None else {"runtimeConfig": {ANNOTATIONS: annotations}}
    given = {"cniVersion": "1.0.0", "name": "net", "type": "tulle-cni", "prevResult": RESULT, **runtime, **more}
    return json.dumps(given).encode()


def environ(command: str = "ADD", netns: str = "/run/netns/pod") -> dict[str, str]:
    return {"CNI_COMMAND": command, "CNI_NETNS": netns, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0"}


@pytest.mark.parametrize(
    "annotations",
    [None, {}, {"linkerd.io/inject": "enabled"}, "", [], {labels.REDIRECT: None}, {labels.REDIRECT: 7}],
)
def test_a_pod_that_the_injector_has_not_marked_passes_untouched(annotations: Any) -> None:
    assert decide(environ(), config(annotations)) == Nothing(RESULT)


def test_a_marked_pod_is_redirected_as_its_annotation_says() -> None:
    found = decide(environ(), config({labels.REDIRECT: WORDS}))
    assert isinstance(found, Redirect)
    assert (found.netns, found.mode, found.check, found.ipv6, found.output) == (
        "/run/netns/pod", "nft", False, False, RESULT,
    )  # fmt: skip
    assert found.redirection.proxy_uid == 2102
    assert found.redirection.inbound_skip.ranges == ((4143, 4143), (4190, 4191))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_ipv6_address_of_any_result_counts(version: str) -> None:
    address = {"version": "6", "address": "fd00::2/64"} if version < "1" else {"address": "fd00::2/64"}
    both = {**RESULT, "ips": [*RESULT["ips"], address]}
    found = decide(environ(), config({labels.REDIRECT: WORDS}, cniVersion=version, prevResult=both))
    assert isinstance(found, Redirect)
    assert found.ipv6
    assert found.output == both


def test_check_has_no_output() -> None:
    found = decide(environ("CHECK"), config({labels.REDIRECT: WORDS}))
    assert isinstance(found, Redirect)
    assert found.check
    assert found.output is None
    assert decide(environ("CHECK"), config()) == Nothing(None)


@pytest.mark.parametrize("command", ["DEL", "GC", "STATUS"])
def test_what_ends_a_pod_or_asks_after_a_node_never_fails(command: str) -> None:
    assert decide(environ(command, ""), config({labels.REDIRECT: "--nonsense"}, prevResult=None)) == Nothing(None)


def test_versions_are_told() -> None:
    assert answer(environ("VERSION"), b'{"cniVersion": "1.0.0"}') == (
        0,
        {"cniVersion": "1.0.0", "supportedVersions": list(VERSIONS)},
    )


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ((environ(), b"{"), 6, "is not JSON"),
        ((environ(), b"[]"), 6, "is not a JSON object"),
        ((environ(), config(cniVersion="9.0.0")), 1, "cniVersion '9.0.0' is not supported"),
        ((environ("EAT"), config()), 4, "CNI_COMMAND is 'EAT'"),
        ((environ(), config(prevResult=None)), 7, "prevResult is missing"),
        ((environ(netns=""), config({labels.REDIRECT: WORDS})), 4, "CNI_NETNS is empty"),
        ((environ(), config({labels.REDIRECT: "--proxy-uid 0"})), 7, "--proxy-uid=0: name the user"),
        ((environ(), config({labels.REDIRECT: "--print"})), 7, "unrecognized arguments: --print"),
        ((environ(), config({labels.REDIRECT: "-h"})), 7, "unrecognized arguments: -h"),
        ((environ(), config({labels.REDIRECT: "--proxy-uid 1;reboot"})), 7, "'1;reboot' is not a numeric id"),
        ((environ(), config({labels.REDIRECT: "1," * 4000})), 7, "8000 characters, at most 4096"),
        ((environ(), config({labels.REDIRECT: WORDS})), 100, "/run/netns/pod: No such file or directory"),
        ((environ(netns="/proc/self/ns/net"), config({labels.REDIRECT: WORDS})), 100, "is the node's own"),
    ],
)
def test_a_refusal_names_its_cause(call: tuple[dict[str, str], bytes], code: int, words: str) -> None:
    exit_code, document = answer(*call)
    assert exit_code == 1
    assert document is not None
    assert document["code"] == code
    assert words in document["msg"]
    assert document["cniVersion"]


def test_a_refusal_is_written_in_the_callers_version() -> None:
    _, document = answer(environ("EAT"), config(cniVersion="0.4.0"))
    assert document is not None
    assert document["cniVersion"] == "0.4.0"
    with pytest.raises(PluginError):
        decide(environ("EAT"), config())


def test_the_golden_pods_without_the_plugin_are_none_of_its() -> None:
    for pod in CASES.values():
        given = (pod["metadata"].get("annotations") or {}).get(labels.REDIRECT)
        init = [each["name"] for each in pod["spec"]["initContainers"]]
        assert (given is not None) == (labels.VALIDATOR_CONTAINER in init)
        assert (given is None) == (labels.INIT_CONTAINER in init)
