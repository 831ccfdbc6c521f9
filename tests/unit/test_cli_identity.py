"""`tulle identity` and `version`: whose certificate, which version, and one family read out of an exposition."""

from typing import Any

import pytest

from components.cli import check, exposition
from components.cli.identity import certificate_of, identity_name, selects
from components.cli.version import component_versions, image_version, proxy_versions
from components.deploy.errors import ClusterError
from proxy.api import labels
from tests.unit.test_cli_check import NOW, deployment, pod

EXPOSITION = """\
# HELP a help
# TYPE a counter
a 1
a_total 9
a{x="1",y="q\\"u}o\\\\te"} 2.5
b{x="1"} 7 1700000000
"""


def test_one_family_is_read_out_of_an_exposition() -> None:
    assert list(exposition.series(EXPOSITION, "a")) == [({}, 1.0), ({"x": "1", "y": 'q"u}o\\te'}, 2.5)]
    assert list(exposition.series(EXPOSITION, "b")) == [({"x": "1"}, 7.0)]
    assert exposition.value(EXPOSITION, "a") == 2.5
    assert exposition.value(EXPOSITION, "none") is None


def meshed_pod() -> Any:
    env = [
        {"name": "TULLE_PROXY_MESH_NAMESPACE", "value": "tulle"},
        {"name": "TULLE_PROXY_TRUST_DOMAIN", "value": "c.l"},
    ]
    found = pod()
    found["spec"] = {
        "initContainers": [{"name": "linkerd-proxy", "env": env}],
        "containers": [],
        "serviceAccountName": "sa",
    }
    return found


def test_identity_is_what_the_proxy_was_told() -> None:
    assert identity_name(meshed_pod()) == "sa.demo.serviceaccount.identity.tulle.c.l"


class Proxy:
    def __init__(self, text: str | None) -> None:
        self.text = text

    def pod_get(self, *_: Any) -> bytes:
        if self.text is None:
            raise ClusterError("port-forward failed")
        return self.text.encode()


@pytest.mark.parametrize(
    ("text", "left", "error"),
    [
        (f"{check.LEAF_EXPIRY} {NOW + 60}\n", 60, ""),
        (f"{check.LEAF_EXPIRY} {NOW - 60}\n", -60, "the certificate has expired"),
        ("", None, "the proxy has no certificate"),
        (f"{check.LEAF_EXPIRY} 0\n", None, "the proxy has no certificate"),
        (None, None, "port-forward failed"),
    ],
)
def test_a_pods_certificate(text: str | None, left: int | None, error: str) -> None:
    found = certificate_of(Proxy(text), meshed_pod(), NOW)  # type: ignore[arg-type]
    assert (found.seconds_left, found.error) == (left, error)


def test_identity_selects_pods_by_name_or_workload() -> None:
    found = meshed_pod()
    assert selects(found, None)
    assert selects(found, "pod/web")
    assert not selects(found, "pod/api")
    assert not selects(found, "deploy/web")
    found["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web-1", "controller": True}]
    found["metadata"]["labels"]["pod-template-hash"] = "1"
    assert selects(found, "deploy/web")
    assert selects(found, "deploy")


def test_versions_are_what_runs() -> None:
    assert component_versions([deployment("identity")]) == {"identity": "abc"}
    assert image_version("r:5000/a/b@sha256:12") == "sha256:12"
    assert image_version("r:5000/a/b") == "latest"
    first = pod()
    first["metadata"]["annotations"][labels.PROXY_VERSION] = "1"
    assert proxy_versions([first, pod(), pod("x", meshed=False)], "tulle") == {"1": 1, "unknown": 1}
