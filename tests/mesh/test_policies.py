"""The six default inbound policies, with and without identity, inside and outside the cluster's networks; probes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from proxy.api.names import workload_identity
from tests.kit.lines import App, Line
from tests.kit.peers import Authority, ask
from tests.kit.topology import Mesh, Pod

PORT = 8080


@dataclass(frozen=True)
class Case:
    """A policy, and who gets in: a meshed caller, one without identity; both inside the networks, then outside."""

    policy: str
    meshed: bool
    plain: bool
    meshed_far: bool
    plain_far: bool


CASES = (
    Case("all-unauthenticated", True, True, True, True),
    Case("all-authenticated", True, False, True, False),
    Case("cluster-unauthenticated", True, True, False, False),
    Case("cluster-authenticated", True, False, False, False),
    Case("deny", False, False, False, False),
    Case("audit", True, True, True, True),
)


@pytest.fixture(scope="module", params=[(case, far) for case in CASES for far in (False, True)],
                ids=lambda value: f"{value[0].policy}-{'outside' if value[1] else 'inside'}")  # fmt: skip
def policed(request: pytest.FixtureRequest, mesh: Mesh) -> Iterator[tuple[Case, bool, Pod, tuple[str, int]]]:
    """A pod under a policy, with an application."""
    case, far = request.param
    name = f"{case.policy}-{'far' if far else 'near'}"
    pod = mesh.pod(name, INBOUND_DEFAULT_POLICY=case.policy, CLUSTER_NETWORKS="192.168.0.0/16" if far else "10.0.0.0/8")
    address = mesh.service(name, 80, [pod], target=PORT)
    with App(pod, PORT):
        yield case, far, pod, address
    pod.proxy.stop(1)


def test_a_meshed_caller(policed: tuple[Case, bool, Pod, tuple[str, int]], client: Pod) -> None:
    case, far, pod, address = policed
    allowed = case.meshed_far if far else case.meshed
    answer = client.get(address)
    assert answer.status == (200 if allowed else 403)
    told = {"tls": "true", "client_id": client.identity, "target_port": str(PORT)}
    if allowed:
        assert pod.proxy.metric("response_total", direction="inbound", authz_name=case.policy, **told) == 1
        let_in = {"authz_kind": "default", "authz_name": case.policy, "route_kind": "default", "route_name": "default"}
        assert pod.proxy.metric("inbound_http_authz_allow_total", **let_in, srv_name=case.policy, **told) == 1
    else:
        assert "l5d-proxy-error" not in answer.headers, "the outbound proxy keeps what another proxy said to itself"
        refused = {"route_kind": "default", "route_name": "default", "srv_name": case.policy}
        assert pod.proxy.metric("inbound_http_authz_deny_total", **refused, **told) == 1
        assert pod.proxy.metric("inbound_http_authz_allow_total", **told) == 0
        assert pod.proxy.metric("inbound_http_errors_total", error="unauthorized", **told) == 1
        assert "inbound request refused" in pod.proxy.log


def test_a_caller_without_identity(policed: tuple[Case, bool, Pod, tuple[str, int]], outsider: Pod) -> None:
    case, far, pod, _ = policed
    allowed = case.plain_far if far else case.plain
    answer = outsider.get((pod.ip, PORT))
    assert answer.status == (200 if allowed else 403)
    assert "l5d-proxy-error" not in answer.headers
    told = {"tls": "no_identity", "no_tls_reason": "no_tls_from_remote", "target_port": str(PORT)}
    if allowed:
        assert pod.proxy.metric("response_total", direction="inbound", **told) == 1
    else:
        assert pod.proxy.metric("inbound_http_authz_deny_total", **told) == 1


def test_bytes_without_identity(
    policed: tuple[Case, bool, Pod, tuple[str, int]], outsider: Pod, lines: Callable[..., Line]
) -> None:
    case, far, pod, _ = policed
    line = lines(outsider, pod, direct=True)
    caller = line.open()
    caller.send(b"\x00\x01")
    if case.plain_far if far else case.plain:
        assert line.accept().exactly(2) == b"\x00\x01"
    else:
        assert caller.is_ended()
        assert line.no_connection(0.1)
        assert pod.proxy.metric("inbound_tcp_authz_deny_total", target_port=str(line.port)) == 1


def test_probes_of_the_kubelet_need_no_identity(mesh: Mesh, outsider: Pod, client: Pod) -> None:
    probes = json.dumps([{"port": PORT, "path": "/healthz"}])
    pod = mesh.pod("probed", INBOUND_DEFAULT_POLICY="deny", INBOUND_PROBES=probes)
    with App(pod, PORT), App(pod, PORT + 1):
        assert outsider.get((pod.ip, PORT), "/healthz").status == 200
        assert outsider.get((pod.ip, PORT), "/healthz/other").status == 403
        assert outsider.get((pod.ip, PORT), "/").status == 403
        assert outsider.get((pod.ip, PORT + 1), "/healthz").status == 403
        with outsider.connect((pod.ip, PORT)) as connection:
            connection.sendall(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            assert b" 403 " in connection.recv(1000)
    assert pod.proxy.metric("request_total", direction="inbound", route_name="probe", authz_name="probe") == 1


def test_identity_is_spoofed_by_nobody(lines: Callable[..., Line], outsider: Pod, web: Pod) -> None:
    line = lines(outsider, web, direct=True)
    caller = line.open()
    caller.send(
        "GET / HTTP/1.1\r\nHost: web\r\nl5d-client-id: admin.demo.serviceaccount.identity.tulle.cluster.local\r\n\r\n"
    )
    _, fields = line.accept().head()
    assert "l5d-client-id" not in fields


def test_metrics_are_for_prometheus_and_the_pod_itself(mesh: Mesh, outsider: Pod, web: Pod) -> None:
    assert outsider.get((web.ip, 4191), "/ready").status == 200
    assert outsider.get((web.ip, 4191), "/live").status == 200
    assert outsider.get((web.ip, 4191), "/metrics").status == 403
    assert outsider.get((web.ip, 4191), "/shutdown").status in (403, 404, 405)
    assert web.proxy.get("/metrics").status == 200
    issuer = Authority(mesh.issuer.certificate.encode(), mesh.issuer.key.encode())
    request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    for account, namespace, status in (("prometheus", "tulle", b" 200 "), ("prometheus", "demo", b" 403 ")):
        leaf = issuer.leaf(workload_identity(account, namespace, "tulle", "cluster.local").dns_name)
        with outsider.namespace.entered():
            answer = ask((web.ip, 4191), web.identity, leaf, request)
        assert status in answer.data[:20], answer
