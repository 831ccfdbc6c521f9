"""Which endpoint a request goes to, and what happens when there is none or it cannot be reached."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.kit.lines import App, Line, Load
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import slowness, until

PORT = 8080


@pytest.fixture(scope="module")
def trio(mesh: Mesh) -> Iterator[list[Pod]]:
    """Three meshed pods of one service."""
    pods = [mesh.pod(f"api-{number}", account="api") for number in range(3)]
    yield pods
    for pod in pods:
        pod.proxy.stop(1)


def test_requests_go_to_the_fast_endpoint(mesh: Mesh, client: Pod, trio: list[Pod]) -> None:
    address = mesh.service("ewma", 80, trio, target=PORT)
    apps = [App(pod, PORT, delay=0.2 if number == 0 else 0.0) for number, pod in enumerate(trio)]
    try:
        with Load(client, address, clients=8, pause=0.002) as load:
            time.sleep(4)
            begun, slow = load.ok, apps[0].answered
            time.sleep(4)
            late, late_slow = load.ok - begun, apps[0].answered - slow
        assert not load.failures, load.failures[:3]
        assert late > 500
        assert late_slow < 0.05 * late, f"{late_slow} of {late} requests went to the slow endpoint"
        assert apps[1].answered > 0.2 * load.ok
        assert apps[2].answered > 0.2 * load.ok
    finally:
        for app in apps:
            app.close()


def test_a_request_that_reached_no_application_is_tried_elsewhere(mesh: Mesh, client: Pod, trio: list[Pod]) -> None:
    address = mesh.service("retry", 80, trio[:2], target=8081)
    with App(trio[1], 8081) as app:
        # Nothing listens in the first pod: its own proxy says that the request reached nobody.
        for number in range(10):
            answer = client.get(address)
            assert (number, answer.status) == (number, 200)
        assert app.answered == 10


def test_an_endpoint_that_refuses_connections_is_passed_over(mesh: Mesh, client: Pod, web: Pod, outsider: Pod) -> None:
    address = mesh.service("refused", 80, [web, outsider], target=8082)
    with App(web, 8082) as app:
        for number in range(10):
            answer = client.get(address)
            assert (number, answer.status) == (number, 200)
        assert app.answered == 10
    where = {"target_addr": f"{outsider.ip}:8082"}
    assert client.proxy.metric("outbound_tcp_errors_total", error="connect error", **where) >= 1


def test_a_post_that_may_have_been_seen_is_not_sent_twice(
    mesh: Mesh, client: Pod, lines: Callable[..., Line], web: Pod
) -> None:
    line = lines(client, web)
    caller = line.open()
    caller.send("POST /pay HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nok")
    app = line.accept()
    app.head()
    app.exactly(2)
    app.close()
    first, _ = caller.head()
    assert first.startswith("HTTP/1.1 502")
    assert line.no_connection()


def test_without_endpoints_a_request_waits_three_seconds_and_is_told(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("empty", 80, [], target=PORT)
    begun = time.monotonic()
    answer = client.get(address)
    took = time.monotonic() - begun
    assert answer.status == 504
    assert answer.headers["l5d-proxy-error"].endswith("failfast")
    assert answer.headers["connection"] == "close"
    assert 2.9 < took < 3 + 0.6 * slowness()
    assert client.proxy.metric("outbound_http_errors_total", error="failfast", target_addr=f"{address[0]}:80") == 1
    # In failfast later requests do not wait as long.
    begun = time.monotonic()
    assert client.get(address).status == 504
    assert time.monotonic() - begun < 1.5 * slowness()


def test_a_waiting_request_goes_out_as_soon_as_there_is_an_endpoint(mesh: Mesh, client: Pod, web: Pod) -> None:
    address = mesh.service("late", 80, [], target=8083)
    with App(web, 8083), client.connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: late\r\n\r\n")
        time.sleep(0.5)
        mesh.endpoints("late", [web], 8083)
        begun = time.monotonic()
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - begun < 0.5 * slowness()


def test_an_endpoint_that_is_removed_finishes_what_it_has(
    mesh: Mesh, client: Pod, lines: Callable[..., Line], web: Pod, trio: list[Pod]
) -> None:
    line = lines(client, web)
    caller = line.open()
    caller.send("GET /slow HTTP/1.1\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    name = f"line-{line.port}"
    with App(trio[0], line.port) as other:
        mesh.endpoints(name, [trio[0]], line.port)
        time.sleep(0.5)  # until then a request may still go where nobody answers it
        until("the new endpoint", lambda: client.get(line.address).body == b"api-0", 5)
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast")
        assert caller.answer().body == b"last"
        caller.send("GET /next HTTP/1.1\r\nHost: web\r\n\r\n")
        assert caller.answer().body == b"api-0"
        assert other.answered >= 2


def test_the_pods_own_address_is_called_without_tls(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("self", 80, [client], target=8084)
    with App(client, 8084) as app:
        assert client.get(address).body == b"client"
        assert client.get((client.ip, 8084)).body == b"client"
        assert app.answered == 2
    own = {"target_addr": f"{client.ip}:8084", "tls": "no_identity", "no_tls_reason": "loopback"}
    assert client.proxy.metric("response_total", direction="outbound", **own) == 1


def test_a_pod_dialled_by_its_own_address_is_reached_over_mutual_tls(client: Pod, web: Pod) -> None:
    with App(web, 8085):
        assert client.get((web.ip, 8085)).status == 200
    where = {"target_addr": f"{web.ip}:8085", "tls": "true", "server_id": web.identity}
    assert client.proxy.metric("response_total", direction="outbound", **where) == 1


def test_an_unmeshed_endpoint_is_called_in_plaintext_and_marked_so(mesh: Mesh, client: Pod, outsider: Pod) -> None:
    address = mesh.service("plain", 80, [outsider], target=8088)
    with App(outsider, 8088):
        assert client.get(address).body == b"outsider"
    marked = {"tls": "no_identity", "no_tls_reason": "not_provided_by_service_discovery", "dst_pod": "outsider"}
    assert client.proxy.metric("response_total", direction="outbound", target_port="8088", **marked) == 1


def test_ipv6_is_redirected_balanced_and_secured_alike(client: Pod, outsider: Pod, web: Pod) -> None:
    with App(web, 8089):
        assert client.get((web.ip6, 8089)).status == 200
        assert outsider.get((web.ip6, 8089)).status == 200
    target = {"target_addr": f"[{web.ip6}]:8089"}
    assert client.proxy.metric("response_total", direction="outbound", server_id=web.identity, **target) == 1
    assert web.proxy.metric("response_total", direction="inbound", client_id=client.identity, **target) == 1
    assert web.proxy.metric("response_total", direction="inbound", tls="no_identity", **target) == 1


def test_a_wanted_identity_is_insisted_on(client: Pod, mesh: Mesh, web: Pod) -> None:
    address = mesh.service("wanted", 80, [web], target=8086)
    with App(web, 8086) as app:
        assert client.get(address, l5d_require_id=web.identity).status == 200
        assert (
            client.get(address, l5d_require_id="other.demo.serviceaccount.identity.tulle.cluster.local").status == 502
        )
        assert app.answered == 1


def test_idle_connections_to_a_peer_are_let_go(client: Pod, mesh: Mesh, web: Pod) -> None:
    address = mesh.service("idle", 80, [web], target=8087)
    where = {"target_addr": f"{web.ip}:8087", "direction": "outbound", "peer": "dst"}
    with App(web, 8087):
        assert client.get(address).status == 200
        assert client.proxy.metric("tcp_open_connections", **where) == 1
        until("no open connection", lambda: client.proxy.metric("tcp_open_connections", **where) == 0, 8)
