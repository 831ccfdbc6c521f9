"""What the injector writes, the data plane reads: its environment and the redirection's arguments, by their own
parsers.
"""

from typing import Any

import pytest

from proxy import settings
from proxy.api import labels
from proxy.redirect.arguments import from_annotation, parser, redirection_from
from tests.unit.test_injector_control_plane import COMPONENTS, made
from tests.unit.test_injector_patch import CASES

DOWNWARD = {
    "metadata.name": "web-1",
    "metadata.namespace": "demo",
    "status.podIPs": "10.0.0.1,fd00::1",
    "spec.nodeName": "node-1",
    "spec.serviceAccountName": "web",
}
PODS: dict[str, dict[str, Any]] = {**CASES, **{component: made(component) for component in COMPONENTS}}


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """The proxy's environment as the kubelet would fill it in."""
    found = {}
    for variable in containers(pod)[labels.PROXY_CONTAINER]["env"]:
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[variable["name"]] = DOWNWARD[path] if path else variable.get("value", "")
    return found


@pytest.mark.parametrize("name", list(PODS))
def test_the_proxy_starts_with_what_it_is_given(name: str) -> None:
    given = environment(PODS[name])
    found = settings.read(given)
    assert settings.unknown(given) == []
    assert found.pod_namespace == "demo"


@pytest.mark.parametrize("name", list(PODS))
def test_the_redirection_takes_its_arguments(name: str) -> None:
    pod = PODS[name]
    init = containers(pod).get(labels.INIT_CONTAINER) or containers(pod)[labels.VALIDATOR_CONTAINER]
    found = redirection_from(parser("test", "").parse_args(init["args"]))
    annotation = pod["metadata"]["annotations"].get(labels.REDIRECT)
    assert annotation is None or from_annotation(annotation)[0] == found
    proxy = settings.read(environment(pod))
    assert {each.port for each in proxy.inbound_listen_addr} == {found.inbound_port}
    assert {each.port for each in proxy.outbound_listen_addr} == {found.outbound_port}


def test_a_dual_stack_pod_is_served_on_both_families_without_a_setting() -> None:
    found = settings.read(environment(CASES["bare"]))
    assert [str(each) for each in found.inbound_listen_addr] == ["[::]:4143"]
    assert [str(each) for each in found.outbound_listen_addr] == ["127.0.0.1:4140", "[::1]:4140"]
