"""What is counted of requests and connections, by the names and labels of Linkerd's two generations."""

import contextlib
import time
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import RequestReceived, ResponseReceived, StreamEnded, StreamReset

from proxy.api.labels import DESTINATION_PORT, IDENTITY_PORT
from tests.kit.counts import PARENT, ROUTE, backend, comes_to, counted, labels, parent, server
from tests.kit.http2 import GRPC, POST, Talk, call, named, serve
from tests.kit.lines import Line, Peer
from tests.kit.topology import Mesh, Pod


def test_a_request_is_counted_by_route_and_backend(line: Line, client: Pod, web: Pod) -> None:
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 200\r\n\r\n" + "x" * 200)
    app = line.accept()
    app.head()
    app.exactly(200)
    time.sleep(0.06)
    app.send("HTTP/1.1 201 Created\r\ncontent-length: 2000\r\n\r\n" + "y" * 2000)
    assert caller.answer("POST").status == 201

    route = {**parent(line), **ROUTE, "hostname": ""}
    metric = client.proxy.metric
    name = "outbound_http_route"
    assert labels(client, f"{name}_request_statuses_total", route) == [{**route, "http_status": "201", "error": ""}]
    assert metric(f"{name}_request_statuses_total", **route, http_status="201", error="") == 1
    assert metric(f"{name}_request_duration_seconds_count", **route) == 1
    assert metric(f"{name}_request_duration_seconds_bucket", **route, le="0.05") == 0
    assert metric(f"{name}_request_duration_seconds_bucket", **route, le="10.0") == 1
    assert metric(f"{name}_request_frame_size_bytes_sum", **route) == 200
    assert metric(f"{name}_request_frame_size_bytes_bucket", **route, le="128.0") == 0
    both = {**parent(line), **ROUTE, **backend(line)}
    name = "outbound_http_route_backend"
    assert labels(client, f"{name}_requests_total", both) == [both]
    assert metric(f"{name}_requests_total", **both) == 1
    assert metric(f"{name}_response_statuses_total", **both, http_status="201", error="") == 1
    assert metric(f"{name}_response_frame_size_bytes_sum", **both) == 2000
    assert 0.05 < metric(f"{name}_response_duration_seconds_sum", **both) < 5

    metric = web.proxy.metric
    served = server(line)
    assert metric("inbound_http_requests_total", **served) == 1
    assert labels(web, "inbound_http_statuses_total", served) == [{**served, "status": "201"}]
    assert metric("inbound_http_request_duration_seconds_count", **served) == 1
    assert metric("inbound_http_request_duration_seconds_bucket", **served, le="0.025") == 0
    assert metric("inbound_http_response_duration_seconds_bucket", **served, le="10.0") == 1
    assert metric("inbound_http_request_frame_size_bytes_sum", **served) == 200
    assert metric("inbound_http_response_frame_size_bytes_sum", **served) == 2000


def test_buckets_are_linkerds(line: Line, client: Pod, web: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    caller.answer()

    def bounds(pod: Pod, name: str, wanted: dict[str, str]) -> list[str]:
        return [found["le"] for found in labels(pod, f"{name}_bucket", wanted)]

    coarse = ["0.05", "0.5", "1.0", "10.0", "+Inf"]
    fine = ["0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "10.0", "+Inf"]
    frames = ["128.0", "1024.0", "10240.0", "+Inf"]
    there, here = parent(line), server(line)
    assert bounds(client, "outbound_http_route_request_duration_seconds", there) == coarse
    assert bounds(client, "outbound_http_route_backend_response_duration_seconds", there) == fine
    assert bounds(client, "outbound_http_route_request_frame_size_bytes", there) == frames
    assert bounds(client, "outbound_http_route_backend_response_frame_size_bytes", there) == frames
    assert bounds(web, "inbound_http_request_duration_seconds", here) == fine
    assert bounds(web, "inbound_http_response_duration_seconds", here) == coarse
    assert bounds(web, "inbound_http_request_frame_size_bytes", here) == frames
    assert bounds(web, "inbound_http_response_frame_size_bytes", here) == frames


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "in the body"])
def test_a_stream_that_is_given_up_is_counted(line: Line, client: Pod, web: Pod, begun: bool) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    if begun:
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\nbegun")
        caller.until(b"begun")
    caller.reset()
    assert app.is_ended()
    ended = {**parent(line), "http_status": "200" if begun else "", "error": "CANCEL"}
    comes_to(lambda: client.proxy.metric("outbound_http_route_request_statuses_total", **ended), 1)
    comes_to(lambda: client.proxy.metric("outbound_http_route_backend_response_statuses_total", **ended), 1)
    comes_to(lambda: web.proxy.metric("inbound_http_statuses_total", **server(line), status=ended["http_status"]), 1)
    assert client.proxy.metric("outbound_http_route_request_duration_seconds_count", **parent(line)) == 1


def test_a_body_that_breaks_off_is_counted_with_its_status(line: Line, client: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\nbegun")
    caller.until(b"begun")
    app.close()
    assert caller.is_ended()
    ended = {**parent(line), "http_status": "200", "error": "IO"}
    comes_to(lambda: client.proxy.metric("outbound_http_route_request_statuses_total", **ended), 1)


def test_what_the_proxy_answers_itself_is_counted_by_cause(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("unserved", 80, [])
    assert client.get(address).status == 504
    where = {**PARENT, "parent_name": "unserved", "parent_port": "80"}
    failed = {**where, "http_status": "", "error": "FAIL_FAST"}
    assert client.proxy.metric("outbound_http_route_request_statuses_total", **failed) == 1
    assert not labels(client, "outbound_http_route_backend_requests_total", where) or not client.proxy.metric(
        "outbound_http_route_backend_requests_total", **where
    )


def test_detection_is_counted_by_what_came_of_it(lines: Callable[..., Line], client: Pod, web: Pod) -> None:
    line = lines(client, web)
    http, other = line.open(), line.open()
    http.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    line.accept().head()
    other.send("not HTTP at all\r\n")
    line.accept().until(b"\n")
    for result in ("http/1", "not_http"):
        assert client.proxy.metric("outbound_tcp_detect_http_results_total", result=result, **parent(line)) == 1
    assert client.proxy.metric("outbound_tcp_detect_http_duration_seconds_count", **parent(line)) == 2


def test_a_detection_that_times_out_is_loud(mesh: Mesh, outsider: Pod) -> None:
    pod = mesh.pod("slow-speaker", INBOUND_DETECT_TIMEOUT="300ms", OUTBOUND_DETECT_TIMEOUT="300ms")
    with contextlib.closing(pod.listen(7777)) as listener, outsider.connect((pod.ip, 7777)) as caller:
        caller.sendall(b"G")
        listener.settimeout(5)
        listener.accept()[0].close()
    where = {"srv_group": "", "srv_kind": "default", "srv_name": "all-unauthenticated", "srv_port": "7777"}
    metric = pod.proxy.metric
    assert metric("inbound_tcp_detect_http_results_total", result="read_timeout", **where) == 1
    assert metric("inbound_tcp_detect_http_duration_seconds_bucket", le="0.1", **where) == 0
    assert metric("tcp_detect_timeout_total", direction="inbound", port="7777") == 1
    (said,) = [line for line in pod.proxy.log.splitlines() if "detection timed out" in line]
    assert "port=7777" in said
    assert "config.linkerd.io/opaque-ports" in said


def test_connections_are_counted_with_linkerds_labels(line: Line, client: Pod, web: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    caller.answer()
    there = {"direction": "inbound", "peer": "src", "target_port": str(line.port)}
    (found,) = labels(web, "tcp_open_total", there)
    assert list(found) == [
        "direction", "peer", "target_addr", "target_ip", "target_port", "tls", "client_id",
        "srv_group", "srv_kind", "srv_name", "srv_port",
    ]  # fmt: skip
    to_app = {"direction": "inbound", "peer": "dst", "tls": "no_identity", "no_tls_reason": "loopback"}
    assert labels(web, "tcp_open_total", {"direction": "inbound", "peer": "dst"}) == [to_app]
    comes_to(lambda: web.proxy.metric("tcp_close_total", errno="", **there), 1)


def test_calls_of_the_control_plane_are_counted(mesh: Mesh, client: Pod) -> None:
    tls = {"tls": "true", "server_id": mesh.control_identity}
    identity = {"addr": f"{mesh.control_pod.ip}:{IDENTITY_PORT}", **tls}
    (found,) = labels(client, "control_request_total", identity)
    assert list(found) == ["addr", "tls", "server_id"]
    ended = {"status_code": "200", "classification": "success", "grpc_status": "0", "error": ""}
    assert client.proxy.metric("control_response_total", **identity, **ended) == 1
    assert client.proxy.metric("control_response_latency_ms_count", **identity, status_code="200") == 1
    mesh.service("watched-for-metrics", 80, [])
    destination = {"addr": f"{mesh.control_pod.ip}:{DESTINATION_PORT}", **tls}
    assert client.proxy.metric("control_request_total", **destination) >= 1
    inside = {"addr": f"127.0.0.1:{IDENTITY_PORT}", "tls": "no_identity", "no_tls_reason": "loopback"}
    assert mesh.control_pod.proxy.metric("control_request_total", **inside) >= 1


def test_the_process_and_its_certificate_are_told(client: Pod) -> None:
    metric = client.proxy.metric
    now = time.time()
    for name in ("virtual_memory_bytes", "resident_memory_bytes", "open_fds", "max_fds", "threads"):
        assert metric(f"process_{name}") >= 1, name
    assert now - 3600 < metric("process_start_time_seconds") < now
    assert metric("process_uptime_seconds_total") > 0
    assert metric("process_cpu_seconds_total") > 0
    assert metric("proxy_build_info", vendor="tulle") == 1
    assert metric("tulle_tls_info", version="TLSv1.3") == 1
    assert metric("control_identity_cert_expiration_timestamp_seconds") > now
    assert now - 3600 < metric("control_identity_cert_refresh_timestamp_seconds") <= now
    assert metric("control_identity_cert_refreshes_total", result="ok") == 1
    assert labels(client, "control_identity_cert_refreshes_total", {"result": "error"})


# HTTP/2 and gRPC


def test_streams_are_counted_one_by_one(line: Line, client: Pod, web: Pod) -> None:
    caller = call(line)
    streams = [caller.ask(POST, body=b"x" * 200) for _ in range(2)]
    app = serve(line)
    for status in (200, 503):
        asked = app.expect(RequestReceived).stream_id
        app.body(asked, 200)
        app.answer(asked, b"y" * 300, status)
    for stream in streams:
        caller.expect(StreamEnded, stream)
    there, here = parent(line), server(line)
    for text in ("200", "503"):
        name = "outbound_http_route"
        assert client.proxy.metric(f"{name}_request_statuses_total", **there, http_status=text, error="") == 1
        name = "outbound_http_route_backend"
        assert client.proxy.metric(f"{name}_response_statuses_total", **there, http_status=text, error="") == 1
        assert web.proxy.metric("inbound_http_statuses_total", **here, status=text) == 1
    assert client.proxy.metric("outbound_http_route_request_frame_size_bytes_sum", **there) == 400
    assert client.proxy.metric("outbound_http_route_backend_response_frame_size_bytes_sum", **there) == 600
    assert web.proxy.metric("inbound_http_requests_total", **here) == 2
    assert web.proxy.metric("inbound_http_request_duration_seconds_count", **here) == 2


def test_grpc_is_classified_by_its_status(line: Line, client: Pod, web: Pod) -> None:
    caller = call(line)
    app: Talk | None = None
    endings = {"0": "success", "5": "success", "14": "failure", "13": "failure", "": "success"}
    for code in endings:
        stream = caller.ask(GRPC)
        app = app or serve(line)
        asked = app.expect(RequestReceived).stream_id
        app.fields(asked, [(":status", "200"), ("content-type", "application/grpc")])
        app.say(asked, b"message", end=not code)
        if code:
            app.fields(asked, [("grpc-status", code)], end=True)
        caller.expect(StreamEnded, stream)
    for code, verdict in endings.items():
        # Without any it is the code for unknown, and yet no failure.
        told = {"grpc_status": code or "2", "classification": verdict, "status_code": "200", "error": ""}
        where = {"direction": "outbound", "target_port": str(line.port)}
        assert client.proxy.metric("response_total", **where, **told) == 1, told
    assert client.proxy.metric("response_latency_ms_count", **where, status_code="200") == len(endings)
    # Each generation once: by route it is gRPC's families that have it, not HTTP's.
    there, here = parent(line), server(line)
    both = {**there, **ROUTE, **backend(line)}
    names = {"0": "OK", "5": "NOT_FOUND", "14": "UNAVAILABLE", "13": "INTERNAL", "": "UNKNOWN"}
    for code, name in names.items():
        ended = {"grpc_status": name, "error": ""}
        route = {**there, **ROUTE, "hostname": "", **ended}
        assert labels(client, "outbound_grpc_route_request_statuses_total", route) == [route]
        counted(client, "outbound_grpc_route_request_statuses_total", route)
        counted(client, "outbound_grpc_route_backend_response_statuses_total", {**both, **ended})
        counted(web, "inbound_grpc_statuses_total", {**here, "status": code or "2"})
    assert client.proxy.metric("outbound_grpc_route_backend_requests_total", **both) == len(endings)
    assert client.proxy.metric("outbound_grpc_route_request_duration_seconds_count", **there) == len(endings)
    assert client.proxy.metric("outbound_grpc_route_backend_response_frame_size_bytes_sum", **there) == 7 * len(endings)
    assert web.proxy.metric("inbound_grpc_requests_total", **here) == len(endings)
    assert not labels(client, "outbound_http_route_request_statuses_total", there)
    assert not labels(client, "outbound_http_route_backend_requests_total", there)
    assert not labels(web, "inbound_http_requests_total", here)


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "in the body"])
def test_a_grpc_stream_that_is_given_up_is_counted(line: Line, client: Pod, web: Pod, begun: bool) -> None:
    caller = call(line)
    stream = caller.ask(GRPC, body=b"message", end=False)
    app = serve(line)
    asked = app.expect(RequestReceived).stream_id
    if begun:
        app.fields(asked, [(":status", "200"), ("content-type", "application/grpc")])
        app.say(asked, b"message")
        caller.body(stream, 7)
    caller.reset(stream, ErrorCodes.CANCEL)
    app.expect(StreamReset, asked)
    ended = {**parent(line), "grpc_status": "UNKNOWN", "error": "CANCEL"}
    counted(client, "outbound_grpc_route_request_statuses_total", ended)
    counted(client, "outbound_grpc_route_backend_response_statuses_total", ended)
    counted(web, "inbound_grpc_statuses_total", {**server(line), "status": "2"})
    legacy = {"direction": "inbound", "target_port": str(line.port), "error": "cancelled"}
    counted(web, "response_total", {**legacy, "grpc_status": "2", "classification": "failure"})


def test_a_grpc_call_that_the_proxy_answers_is_counted_by_cause(mesh: Mesh, client: Pod) -> None:
    ip, port = mesh.service("grpc-unserved", 80, [])
    caller = Talk(Peer(client.connect((ip, port))), True)
    stream = caller.ask(GRPC, body=b"message")
    assert named(caller.expect(ResponseReceived, stream))["grpc-status"] == "4"
    where = {"parent_name": "grpc-unserved", "grpc_status": "UNKNOWN", "error": "FAIL_FAST"}
    counted(client, "outbound_grpc_route_request_statuses_total", where)
    caller.peer.close()


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "in the body"])
def test_resets_are_counted_by_who_sent_them(line: Line, client: Pod, begun: bool) -> None:
    caller = call(line)
    mine, theirs = caller.ask(), caller.ask()
    app = serve(line)
    for _ in range(2):
        asked = app.expect(RequestReceived).stream_id
        if begun:
            app.fields(asked, [(":status", "200")])
            caller.expect(ResponseReceived)
    caller.reset(mine, ErrorCodes.CANCEL)
    app.expect(StreamReset)
    app.reset(3 if mine == 1 else 1, ErrorCodes.INTERNAL_ERROR)
    caller.expect(StreamReset, theirs)
    status = "200" if begun else ""
    for error in ("CANCEL", "RESET"):
        ended = {**parent(line), "http_status": status, "error": error}
        counted(client, "outbound_http_route_request_statuses_total", ended)
        counted(client, "outbound_http_route_backend_response_statuses_total", ended)
    legacy = {"direction": "outbound", "target_port": str(line.port), "classification": "failure"}
    counted(client, "response_total", {**legacy, "error": "h2(INTERNAL_ERROR)"})
    counted(client, "response_total", {**legacy, "error": "cancelled"})
