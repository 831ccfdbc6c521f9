"""Bytes that are no HTTP, or are said to be none: passed on as they are, under mutual TLS."""

import hashlib
import os
import time
from collections.abc import Callable

import pytest

from tests.kit.lines import Line, in_thread
from tests.kit.topology import Mesh, Pod

Lines = Callable[..., Line]


@pytest.fixture(params=["detected", "marked"])
def stream(request: pytest.FixtureRequest, lines: Lines, client: Pod, web: Pod) -> Line:
    """A line whose port is marked opaque, or whose first bytes show that it is."""
    return lines(client, web, opaque=request.param == "marked")


@pytest.fixture
def marked(lines: Lines, client: Pod, web: Pod) -> Line:
    return lines(client, web, opaque=True)


def test_bytes_pass_both_ways_under_mutual_tls(stream: Line, client: Pod, web: Pod) -> None:
    caller = stream.open()
    caller.send(b"\x00\x01ping")
    app = stream.accept()
    assert app.exactly(6) == b"\x00\x01ping"
    app.send(b"\xff" * 1000)
    assert caller.exactly(1000) == b"\xff" * 1000
    port = {"target_port": str(stream.port), "tls": "true", "peer": "dst"}
    assert client.proxy.metric("tcp_open_connections", direction="outbound", server_id=web.identity, **port) == 1
    assert client.proxy.metric("tcp_write_bytes_total", direction="outbound", server_id=web.identity, **port) == 6
    assert client.proxy.metric("tcp_read_bytes_total", direction="outbound", server_id=web.identity, **port) == 1000
    port = {"target_port": str(stream.port), "tls": "true", "peer": "src"}
    assert web.proxy.metric("tcp_read_bytes_total", direction="inbound", client_id=client.identity, **port) == 6


def test_a_server_may_speak_first_where_the_port_is_marked(marked: Line) -> None:
    caller = marked.open()
    app = marked.accept()
    app.send("220 ready\r\n")
    assert caller.until(b"\r\n") == b"220 ready\r\n"
    caller.send("EHLO\r\n")
    assert app.until(b"\r\n") == b"EHLO\r\n"


def test_http_on_a_marked_port_is_not_looked_at(marked: Line) -> None:
    caller = marked.open()
    caller.send("GET / HTTP/1.1\nbroken: framing\n\n")
    assert marked.accept().until(b"\n\n") == b"GET / HTTP/1.1\nbroken: framing\n\n"


def test_http2_on_a_marked_port_is_not_looked_at(marked: Line) -> None:
    caller = marked.open()
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    caller.send(preface[:5])
    caller.send(preface[5:])
    app = marked.accept()
    assert app.exactly(len(preface)) == preface
    app.send(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    assert caller.exactly(9)[3] == 4


@pytest.mark.parametrize("first", ["caller", "app"])
def test_each_way_ends_by_itself(stream: Line, first: str) -> None:
    caller = stream.open()
    caller.send(b"\x01begin")
    app = stream.accept()
    assert app.exactly(6) == b"\x01begin"
    one, other = (caller, app) if first == "caller" else (app, caller)
    one.send(b"last words")
    one.finish()
    assert other.to_end() == b"last words"
    for _ in range(3):
        other.send(b"still talking")
        assert one.exactly(13) == b"still talking"
    other.finish()
    assert one.is_ended()


def test_a_reset_is_passed_on(stream: Line) -> None:
    caller = stream.open()
    caller.send(b"\x01begin")
    app = stream.accept()
    app.exactly(6)
    app.reset()
    assert caller.is_ended()


def test_what_came_before_a_reset_arrives(stream: Line) -> None:
    caller = stream.open()
    caller.send(b"\x01begin")
    app = stream.accept()
    app.exactly(6)
    data = os.urandom(3_000_000)

    def send() -> None:
        app.send(data)
        app.drained()
        app.reset()

    with in_thread(send):
        time.sleep(0.3)
        assert hashlib.sha256(caller.exactly(len(data))).digest() == hashlib.sha256(data).digest()
        with pytest.raises(ConnectionResetError):
            caller.to_end()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_much_arrives_as_it_was_sent(stream: Line, direction: str) -> None:
    data = b"\x00" + os.urandom(20_000_000)
    caller = stream.open()
    caller.send(b"\x01begin")
    app = stream.accept()
    app.exactly(6)
    one, other = (caller, app) if direction == "up" else (app, caller)

    def send() -> None:
        one.send(data)
        one.finish()

    with in_thread(send):
        assert hashlib.sha256(other.to_end()).digest() == hashlib.sha256(data).digest()


def test_a_request_line_in_pieces_is_still_http(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web)
    caller = line.open()
    for piece in ("GE", "T /in", "-pieces HT", "TP/1.1\r\nHost: web\r\n"):
        caller.send(piece)
        assert line.no_connection(0.05)
    caller.send("\r\n")
    app = line.accept()
    first, fields = app.head()
    assert first == "GET /in-pieces HTTP/1.1"
    assert "l5d-client-id" in fields


def test_what_ends_before_it_can_be_told_is_passed_on(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web)
    caller = line.open()
    caller.send("GET")
    caller.finish()
    app = line.accept()
    assert app.to_end() == b"GET"
    app.send("what?")
    app.close()
    assert caller.to_end() == b"what?"


def test_a_silent_caller_is_passed_on_after_the_detection_timeout(mesh: Mesh, lines: Lines) -> None:
    caller_pod = mesh.pod("slow-client", OUTBOUND_DETECT_TIMEOUT="500ms")
    server_pod = mesh.pod("slow-web", INBOUND_DETECT_TIMEOUT="500ms")
    line = lines(caller_pod, server_pod)
    caller = line.open()
    app = line.accept()
    app.send("220 late\r\n")
    assert caller.until(b"\r\n") == b"220 late\r\n"
    assert caller_pod.proxy.metric("tcp_detect_timeout_total", direction="outbound", port=str(line.port)) == 1
    assert f"port={line.port}" in caller_pod.proxy.log
    assert "config.linkerd.io/opaque-ports" in caller_pod.proxy.log


def test_a_plaintext_caller_that_is_silent_is_let_go_inbound(mesh: Mesh, outsider: Pod, lines: Lines) -> None:
    server_pod = mesh.pod("strict-web", INBOUND_DETECT_TIMEOUT="500ms")
    line = lines(outsider, server_pod, direct=True)
    caller = line.open()
    assert caller.is_ended()
    port = {"target_port": str(line.port), "error": "tls detection timeout"}
    assert server_pod.proxy.metric("inbound_tcp_errors_total", **port) == 1
    assert "tls detection timeout" in server_pod.proxy.log


def test_an_address_nobody_knows_is_dialled_as_it_is(lines: Lines, client: Pod, outsider: Pod) -> None:
    line = lines(client, outsider, direct=True)
    caller = line.open()
    caller.send("GET /plain HTTP/1.1\r\nHost: out\r\n\r\n")
    app = line.accept()
    first, fields = app.head()
    assert first == "GET /plain HTTP/1.1"
    assert "l5d-client-id" not in fields
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert caller.answer().status == 200
    plain = {"direction": "outbound", "tls": "no_identity", "no_tls_reason": "not_provided_by_service_discovery"}
    assert client.proxy.metric("response_total", target_port=str(line.port), **plain) == 1
