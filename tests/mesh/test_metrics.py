"""What is counted, by the names and labels of Linkerd's second generation; and the access log."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.events import RequestReceived, ResponseReceived, StreamEnded, StreamReset

from tests.kit.http2 import GET, GRPC, POST, Talk, call, serve
from tests.kit.lines import Line
from tests.kit.topology import Mesh, Pod

PARENT = {"parent_group": "core", "parent_kind": "Service", "parent_namespace": "demo", "parent_section_name": ""}
ROUTE = {"route_group": "", "route_kind": "default", "route_namespace": "", "route_name": "http"}


def parent(line: Line) -> dict[str, str]:
    return {**PARENT, "parent_name": f"line-{line.port}", "parent_port": str(line.port)}


def server(line: Line, policy: str = "all-unauthenticated") -> dict[str, str]:
    return {
        "parent_group": "", "parent_kind": "default", "parent_name": policy, "parent_port": str(line.port),
        "route_group": "", "route_kind": "default", "route_name": "default",
    }  # fmt: skip


def until(value: Callable[[], Any], wanted: Any, seconds: float = 5) -> None:
    """Wait for a count: streams are counted when they end, which is after the client has its answer."""
    deadline = time.monotonic() + seconds
    while (seen := value()) != wanted:
        assert time.monotonic() < deadline, f"{seen!r} is not {wanted!r}"
        time.sleep(0.05)


def labels(pod: Pod, name: str, wanted: dict[str, str]) -> list[dict[str, str]]:
    return [found for found, _ in pod.proxy.samples(name) if wanted.items() <= found.items()]


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
    backend = {key.replace("parent", "backend"): value for key, value in parent(line).items()}
    metric = client.proxy.metric
    name = "outbound_http_route"
    assert labels(client, f"{name}_request_statuses_total", route) == [{**route, "http_status": "201", "error": ""}]
    assert metric(f"{name}_request_statuses_total", **route, http_status="201", error="") == 1
    assert metric(f"{name}_request_duration_seconds_count", **route) == 1
    assert metric(f"{name}_request_duration_seconds_bucket", **route, le="0.05") == 0
    assert metric(f"{name}_request_duration_seconds_bucket", **route, le="10") == 1
    assert metric(f"{name}_request_frame_size_bytes_sum", **route) == 200
    assert metric(f"{name}_request_frame_size_bytes_bucket", **route, le="128") == 0
    both = {**parent(line), **ROUTE, **backend}
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
    assert metric("inbound_http_response_duration_seconds_bucket", **served, le="10") == 1
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

    coarse, fine = ["0.05", "0.5", "1", "10", "+Inf"], ["0.025", "0.05", "0.1", "0.25", "0.5", "1", "10", "+Inf"]
    frames = ["128", "1024", "10240", "+Inf"]
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
    until(lambda: client.proxy.metric("outbound_http_route_request_statuses_total", **ended), 1)
    until(lambda: client.proxy.metric("outbound_http_route_backend_response_statuses_total", **ended), 1)
    until(lambda: web.proxy.metric("inbound_http_statuses_total", **server(line), status=ended["http_status"]), 1)
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
    until(lambda: client.proxy.metric("outbound_http_route_request_statuses_total", **ended), 1)


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
    until(lambda: web.proxy.metric("tcp_close_total", errno="", **there), 1)


# The access log


def logged(pod: Pod) -> list[str]:
    """Lines of the access log: neither of the two forms looks like the proxy's own log."""
    return [line for line in pod.proxy.log.splitlines() if " - [" in line or line.startswith("{")]


@pytest.fixture(scope="module", params=["apache", "json"])
def logging(request: pytest.FixtureRequest, mesh: Mesh) -> Pod:
    """A pod that logs access."""
    return mesh.pod(f"logs-{request.param}", settings={"ACCESS_LOG": request.param})


def test_each_request_is_one_line(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    caller = line.open()
    before = len(logged(logging))
    caller.send(
        "GET /a?b=c HTTP/1.1\r\nhost: web\r\nuser-agent: kit \"1\"\r\nx-request-id: r1\r\nx-b3-traceid: t1\r\n"
        "content-length: 2\r\n\r\nhi"
    )  # fmt: skip
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno!")
    assert caller.answer().status == 404
    until(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    stamp = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"
    address = rf"{re.escape(client.ip)}:\d+"
    if logging.name == "logs-apache":
        assert re.fullmatch(
            rf'{address} {re.escape(client.identity)} - \[{stamp}\] "GET /a\?b=c HTTP/1.1" 404', text
        ), text
        return
    found = json.loads(text)
    assert list(found) == [
        "client.addr", "client.id", "host", "method", "processing_ns", "request_bytes", "response_bytes", "status",
        "timestamp", "total_ns", "trace_id", "uri", "user_agent", "version",
    ]  # fmt: skip
    assert re.fullmatch(address, found.pop("client.addr"))
    assert re.fullmatch(stamp, found.pop("timestamp"))
    assert 0 < int(found.pop("processing_ns")) < int(found.pop("total_ns")) < 10_000_000_000
    assert found == {
        "client.id": client.identity, "host": "web", "method": "GET", "request_bytes": "2", "response_bytes": "3",
        "status": 404, "trace_id": "t1", "uri": "/a?b=c", "user_agent": 'kit "1"', "version": "HTTP/1.1",
    }  # fmt: skip


def test_a_caller_without_identity_and_a_refusal_are_logged_too(logging: Pod, outsider: Pod) -> None:
    """Nothing listens on the port: the answer is the proxy's own."""
    before = len(logged(logging))
    assert outsider.get((logging.ip, 8089)).status == 502
    until(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert re.search(r':\d+ - - \[.*\] "GET / HTTP/1.1" 502$', text)
    else:
        found = json.loads(text)
        assert (found["client.id"], found["status"], found["response_bytes"]) == ("-", 502, "0")


def test_a_request_that_is_given_up_has_no_status(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    before = len(logged(logging))
    caller = line.open()
    caller.send("GET /gone HTTP/1.1\r\nhost: web\r\n\r\n")
    line.accept().head()
    caller.reset()
    until(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert text.endswith('"GET /gone HTTP/1.1"')
    else:
        assert "status" not in json.loads(text)


def test_without_the_setting_nothing_is_logged(line: Line, web: Pod) -> None:
    caller = line.open()
    caller.send("GET /quiet HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    caller.answer()
    time.sleep(0.1)
    assert "/quiet" not in web.proxy.log


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


def test_grpc_is_classified_by_its_status(line: Line, client: Pod) -> None:
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
        counted_until(client, "outbound_http_route_request_statuses_total", ended)
        counted_until(client, "outbound_http_route_backend_response_statuses_total", ended)
    legacy = {"direction": "outbound", "target_port": str(line.port), "classification": "failure"}
    counted_until(client, "response_total", {**legacy, "error": "h2(INTERNAL_ERROR)"})
    counted_until(client, "response_total", {**legacy, "error": "cancelled"})


def counted_until(pod: Pod, name: str, wanted: dict[str, str]) -> None:
    until(lambda: pod.proxy.metric(name, **wanted), 1)


def test_a_stream_has_a_line_of_its_own(logging: Pod, lines: Callable[..., Line], client: Pod) -> None:
    line = lines(client, logging)
    before = len(logged(logging))
    caller = call(line)
    stream = caller.ask([*GET[:3], (":path", "/two?x"), ("user-agent", "kit")])
    app = serve(line)
    asked = app.expect(RequestReceived).stream_id
    app.fields(asked, [(":status", "200"), ("content-length", "0")], end=True)
    caller.expect(StreamEnded, stream)
    until(lambda: len(logged(logging)), before + 1)
    text = logged(logging)[-1]
    if logging.name == "logs-apache":
        assert text.endswith('"GET http://web/two?x HTTP/2.0" 200')
    else:
        found = json.loads(text)
        assert (found["uri"], found["version"], found["status"]) == ("http://web/two?x", "HTTP/2.0", 200)
        assert (found["response_bytes"], found["user_agent"]) == ("0", "kit")
