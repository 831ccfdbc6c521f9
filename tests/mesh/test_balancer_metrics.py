"""What is counted of balancers and of opaque connections: endpoints, discovery's updates, the queue and its gate."""

import time
from collections.abc import Callable

import pytest

from tests.kit.counts import PARENT, ROUTE, backend, comes_to, counted, labels, parent
from tests.kit.lines import App, Line, Peer
from tests.kit.sidecar import read_answer
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

HTTP = "outbound_http_balancer"
TCP = "outbound_tcp_balancer"


def named(name: str, port: int = 80) -> dict[str, str]:
    """The Service, as its balancer is called."""
    here = {**PARENT, "parent_name": name, "parent_port": str(port)}
    return {**here, **{key.replace("parent", "backend"): value for key, value in here.items()}}


@pytest.fixture(scope="module")
def hasty(mesh: Mesh) -> Pod:
    """A caller that fails fast."""
    return mesh.pod("hasty", OUTBOUND_FAILFAST_TIMEOUT="300ms")


def test_endpoints_are_ready_or_pending(mesh: Mesh, client: Pod, web: Pod, outsider: Pod) -> None:
    """A connect that fails makes an endpoint pending for a while."""
    address = mesh.service("pending", 80, [web, outsider], target=8201)
    where = named("pending")
    with App(web, 8201):

        def refused() -> bool:
            client.get(address)
            return bool(client.proxy.metric(f"{HTTP}_endpoints", **where, endpoint_state="pending") == 1)

        until("an endpoint that backs off", refused, 10, pause=0.01)
        comes_to(lambda: client.proxy.metric(f"{HTTP}_endpoints", **where, endpoint_state="ready"), 2)
    assert labels(client, f"{HTTP}_endpoints", {**where, "endpoint_state": "ready"}) == [
        {**where, "endpoint_state": "ready"}
    ]
    assert client.proxy.metric(f"{HTTP}_p2c_endpoints", **where) == 2


def test_updates_of_discovery_are_counted_by_what_they_did(mesh: Mesh, client: Pod, web: Pod, outsider: Pod) -> None:
    address = mesh.service("updated", 80, [web], target=8202)
    where = named("updated")
    with App(web, 8202):
        assert client.get(address).status == 200
        mesh.endpoints("updated", [web, outsider], 8202)
        counted(client, f"{HTTP}_p2c_updates_total", {**where, "op": "Add"})
        mesh.endpoints("updated", [web], 8202)
        counted(client, f"{HTTP}_p2c_updates_total", {**where, "op": "Remove"})
    assert client.proxy.metric(f"{HTTP}_p2c_updates_total", **where, op="Add") == 1
    assert client.proxy.metric(f"{HTTP}_p2c_updates_total", **where, op="Reset") == 1
    assert client.proxy.metric(f"{HTTP}_p2c_endpoints", **where) == 1


def test_a_request_that_waits_is_in_the_queue(mesh: Mesh, client: Pod, web: Pod) -> None:
    address = mesh.service("queued", 80, [], target=8203)
    where = named("queued")
    metric = client.proxy.metric
    with App(web, 8203), client.connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: queued\r\n\r\n")
        counted(client, f"{HTTP}_queue_length", where)
        time.sleep(0.1)
        mesh.endpoints("queued", [web], 8203)
        assert read_answer(connection).status == 200
        assert metric(f"{HTTP}_queue_length", **where) == 0
        assert metric(f"{HTTP}_queue_requests_total", **where) == 1
        assert metric(f"{HTTP}_queue_latency_seconds_bucket", **where, le="0.05") == 0
        assert metric(f"{HTTP}_queue_latency_seconds_sum", **where) > 0.1
        for _ in range(3):
            assert client.get(address).status == 200
    assert metric(f"{HTTP}_queue_requests_total", **where) == 4
    bounds = {found["le"]: count for found, count in client.proxy.samples(f"{HTTP}_queue_latency_seconds_bucket")
              if where.items() <= found.items()}  # fmt: skip
    assert list(bounds) == ["0.0005", "0.005", "0.05", "0.5", "1.0", "3.0", "+Inf"]
    assert (bounds["0.0005"], bounds["+Inf"]) == (3, 4)


def test_who_gives_up_waiting_leaves_the_queue(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("given-up", 80, [], target=8204)
    with client.connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: given-up\r\n\r\n")
        counted(client, f"{HTTP}_queue_length", named("given-up"))
    counted(client, f"{HTTP}_queue_length", named("given-up"), 0)
    assert client.proxy.metric(f"{HTTP}_queue_latency_seconds_count", **named("given-up")) == 1


def test_failfast_shuts_the_gate_until_an_endpoint_is_there(mesh: Mesh, hasty: Pod, web: Pod) -> None:
    address = mesh.service("gated", 80, [], target=8205)
    where = named("gated")
    metric = hasty.proxy.metric
    gate = f"{HTTP}_queue_gate"
    begun = time.time()
    assert hasty.get(address).status == 504
    assert (metric(f"{gate}_open_total", **where), metric(f"{gate}_shut_total", **where)) == (1, 1)
    assert metric(f"{gate}_open_time_seconds", **where) == 0
    assert begun < metric(f"{gate}_shut_time_seconds", **where) < time.time()
    assert metric(f"{gate}_timeout_seconds", **where) == 0.3
    with App(web, 8205):
        mesh.endpoints("gated", [web], 8205)
        until("an answer", lambda: hasty.get(address).status == 200, 5)
        assert (metric(f"{gate}_open_total", **where), metric(f"{gate}_shut_total", **where)) == (2, 1)
        assert metric(f"{gate}_shut_time_seconds", **where) == 0
        assert begun < metric(f"{gate}_open_time_seconds", **where) < time.time()


def test_opaque_connections_have_a_balancer_and_a_route(lines: Callable[..., Line], client: Pod, web: Pod) -> None:
    line = lines(client, web, opaque=True)
    caller = line.open()
    caller.send(b"\x00\x01")
    app = line.accept()
    assert app.exactly(2) == b"\x00\x01"
    metric = client.proxy.metric
    where = {**parent(line), **backend(line)}
    route = {**parent(line), **ROUTE, "route_name": "opaq"}
    assert metric(f"{TCP}_endpoints", **where, endpoint_state="ready") == 1
    assert metric(f"{TCP}_queue_requests_total", **where) == 1
    assert not labels(client, f"{HTTP}_endpoints", where)
    assert labels(client, "outbound_tcp_route_open_total", route) == [route]
    assert metric("outbound_tcp_route_open_total", **route) == 1
    assert metric("outbound_tcp_protocol_connections_total", protocol="opaq", **parent(line)) == 1
    told = {"session_protocol": "", "target_port": str(line.port), "target_name": "", "client_id": client.identity}
    assert labels(web, "inbound_tcp_transport_header_connections_total", told) == [told]
    allowed = {"target_port": str(line.port), "authz_kind": "default", "authz_name": "all-unauthenticated"}
    assert web.proxy.metric("inbound_tcp_authz_allow_total", **allowed, client_id=client.identity) == 1
    app.close()
    caller.close()
    counted(client, "outbound_tcp_route_close_total", {**route, "error": ""})


def test_an_opaque_connection_that_goes_nowhere_is_told_by_its_end(mesh: Mesh, hasty: Pod, outsider: Pod) -> None:
    address = mesh.service("opaque-dead", 20998, [outsider], opaque="20998")
    with Peer(hasty.connect(address)) as caller:
        caller.send(b"\x00")
        assert caller.is_ended()
    where = {"parent_name": "opaque-dead", "route_name": "opaq"}
    counted(hasty, "outbound_tcp_route_close_total", {**where, "error": "unexpected"})


def test_detected_connections_are_counted_by_their_configuration(line: Line, client: Pod) -> None:
    line.open().send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    line.accept().head()
    found = labels(client, "outbound_tcp_protocol_connections_total", parent(line))
    assert found == [{"protocol": "detect", **parent(line)}]
