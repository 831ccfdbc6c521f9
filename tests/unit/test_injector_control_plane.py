"""The control plane's own pods: whole, as golden files, and the few rules that make them start at all."""

import json
import os
from typing import Any

import pytest

from components.injector.control_plane import control_plane_pod
from tests.unit.test_injector_patch import CONFIG, GOLDEN, env

COMPONENTS = ("identity", "destination", "injector", "prometheus")


def made(component: str, **options: Any) -> dict[str, Any]:
    containers = [
        {
            "name": component,
            "image": "localhost/tulle/control:1",
            "ports": [{"name": "admin", "containerPort": 9990}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "admin"}},
            "livenessProbe": {"httpGet": {"path": "/live", "port": "admin"}},
        }
    ]
    template = {
        "metadata": {"labels": {"app": component}},
        "spec": {"serviceAccountName": component, "containers": containers},
    }
    return control_plane_pod(template, CONFIG, component, **options)


def redirect(pod: dict[str, Any]) -> dict[str, str]:
    (container,) = [each for each in pod["spec"]["initContainers"] if each["name"] == "linkerd-init"]
    arguments = container["args"]
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_pod_is_as_it_was_agreed(component: str) -> None:
    path = GOLDEN / f"control-plane-{component}.json"
    text = json.dumps(made(component), indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


def test_identity_and_its_proxy_start_side_by_side() -> None:
    pod = made("identity")
    proxy = pod["spec"]["containers"][0]
    assert proxy["name"] == "linkerd-proxy"
    assert "lifecycle" not in proxy, "its proxy is ready only once identity answers"
    assert env(pod)["IDENTITY_SVC_ADDR"] == "127.0.0.1:8080"
    assert env(pod)["INBOUND_TLS_UNAUTHENTICATED_PORTS"] == "8080"


def test_destination_asks_itself_over_loopback() -> None:
    assert env(made("destination"))["DESTINATION_SVC_ADDR"] == "127.0.0.1:8086"


def test_the_api_server_reaches_the_webhook_past_the_proxy() -> None:
    assert redirect(made("injector"))["--inbound-skip-ports"] == "4190,4191,4567,4568,8443"
    assert redirect(made("destination"))["--inbound-skip-ports"] == "4190,4191,4567,4568"


@pytest.mark.parametrize("component", COMPONENTS)
def test_everyone_reaches_the_api_server_and_demands_certificates(component: str) -> None:
    pod = made(component)
    assert redirect(pod)["--outbound-skip-ports"] == "4567,4568,443,6443"
    assert env(pod)["INBOUND_DEFAULT_POLICY"] == "all-authenticated"
    assert json.loads(env(pod)["INBOUND_PROBES"]) == [{"port": 9990, "path": "/live"}, {"port": 9990, "path": "/ready"}]


def test_an_old_cluster_gets_classic_sidecars() -> None:
    pod = made("destination", native_supported=False)
    assert [each["name"] for each in pod["spec"]["containers"]] == ["linkerd-proxy", "destination"]
