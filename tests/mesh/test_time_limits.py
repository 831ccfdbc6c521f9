"""How long callers wait for a Service, and how many requests a proxy has in hand."""

import time
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import RequestReceived, ResponseReceived, StreamReset

from tests.kit.http2 import GET, GRPC, POST, call, named, serve
from tests.kit.lines import Line
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import slowness

Lines = Callable[..., Line]
TIMEOUT = "timeout.linkerd.io/"


def errors(client: Pod, line: Line, error: str) -> float:
    where = {"error": error, "target_addr": f"{line.address[0]}:{line.port}"}
    return float(client.proxy.metric("outbound_http_errors_total", **where))


def test_a_request_has_its_time(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}request": "300ms"})
    caller = line.open()
    begun = time.monotonic()
    caller.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nok")
    app = line.accept()
    app.head()
    app.exactly(2)
    answer = caller.answer("POST")
    assert 0.28 < time.monotonic() - begun < 0.6 * slowness()
    assert (answer.status, answer.headers["l5d-proxy-error"]) == (504, "request timeout")
    assert app.is_ended(), "the application is told that nobody listens"
    assert errors(client, line, "request timeout") == 1
    counted = {"parent_name": f"line-{line.port}", "error": "REQUEST_TIMEOUT"}
    assert client.proxy.metric("outbound_http_route_request_statuses_total", **counted) == 1


@pytest.mark.parametrize("fields", [POST, GRPC], ids=["http", "grpc"])
def test_a_stream_has_its_time(lines: Lines, client: Pod, web: Pod, fields: list[tuple[str, str]]) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}request": "300ms"})
    caller = call(line)
    stream = caller.ask(fields, body=b"\0\0\0\0\1x")
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    head = named(caller.expect(ResponseReceived, stream))
    if fields is GRPC:
        assert (head[":status"], head["grpc-status"], head["grpc-message"]) == ("200", "4", "request timeout")
    else:
        assert head[":status"] == "504"
    assert head["l5d-proxy-error"] == "request timeout"
    assert app.expect(StreamReset, there).error_code == ErrorCodes.CANCEL
    other = caller.ask(fields, body=b"\0\0\0\0\1x")
    app.answer(app.expect(RequestReceived).stream_id, b"quick")
    assert caller.body(other, 5) == b"quick"


def test_waiting_for_an_endpoint_counts(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("nobody", 80, [], annotations={f"{TIMEOUT}request": "300ms"})
    begun = time.monotonic()
    answer = client.get(address)
    assert (answer.status, answer.headers["l5d-proxy-error"]) == (504, "request timeout")
    assert time.monotonic() - begun < 1.5 * slowness(), "as long as failfast"


def test_a_response_has_its_time_once_the_request_is_whole(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}response": "400ms"})
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\no")
    app = line.accept()
    app.head()
    assert caller.is_silent(0.8), "a request that is not whole has no response to wait for"
    caller.send("k")
    begun = time.monotonic()
    answer = caller.answer("POST")
    assert (answer.status, answer.headers["l5d-proxy-error"]) == (504, "response timeout")
    assert time.monotonic() - begun > 0.38


def test_a_response_that_is_late_in_its_body_is_cut(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}response": "400ms"})
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    assert caller.head()[0] == "HTTP/1.1 200 OK"
    assert caller.exactly(4) == b"half"
    assert caller.is_ended()
    assert app.is_ended()
    counted = {"parent_name": f"line-{line.port}", "error": "RESPONSE_STREAM_TIMEOUT"}
    assert client.proxy.metric("outbound_http_route_request_statuses_total", **counted) == 1


def test_a_stream_that_is_late_in_its_body_is_reset(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}response": "400ms"})
    caller = call(line)
    stream = caller.ask(GET)
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.fields(there, [(":status", "200")])
    app.say(there, b"half")
    assert caller.body(stream, 4) == b"half"
    assert caller.expect(StreamReset, stream).error_code == ErrorCodes.CANCEL
    assert app.expect(StreamReset, there).error_code == ErrorCodes.CANCEL


def test_silence_ends_a_response_and_movement_does_not(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}idle": "500ms"})
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    caller.head()
    for _ in range(6):
        app.send("piece")
        assert caller.exactly(5) == b"piece"
        time.sleep(0.2)
    assert caller.is_ended()
    assert app.is_ended()
    counted = {"parent_name": f"line-{line.port}", "error": "IDLE_TIMEOUT"}
    assert client.proxy.metric("outbound_http_route_request_statuses_total", **counted) == 1


def test_silence_before_an_answer_is_answered(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}idle": "300ms"})
    caller = call(line)
    stream = caller.ask(POST, end=False)
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    for _ in range(4):
        time.sleep(0.15)
        caller.say(stream, b"piece")
    assert app.body(there, 20) == b"piece" * 4
    head = named(caller.expect(ResponseReceived, stream))
    assert (head[":status"], head["l5d-proxy-error"]) == ("504", "stream idle timeout")
    assert errors(client, line, "stream idle timeout") == 1


def test_a_request_that_is_answered_in_time_leaves_nothing_behind(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations={f"{TIMEOUT}request": "300ms", f"{TIMEOUT}idle": "300ms"})
    caller = line.open()
    app = None
    for _ in range(3):
        caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        app = app or line.accept()
        app.head()
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        assert caller.answer().body == b"ok"
        assert caller.is_silent(0.4)


def test_a_proxy_with_too_much_in_hand_sheds_load(mesh: Mesh, web: Pod, lines: Lines) -> None:
    busy = mesh.pod("busy", settings={"MAX_IN_FLIGHT": "2"})
    line = lines(busy, web)
    callers = [line.open() for _ in range(2)]
    apps = []
    for caller in callers:
        caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        apps.append(line.accept())
        apps[-1].head()
    answer = busy.get(line.address)
    assert (answer.status, answer.headers["l5d-proxy-error"]) == (503, "loadshed")
    assert errors(busy, line, "loadshed") == 1
    apps[0].send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
    assert callers[0].answer().body == b"ok"
    callers[1].reset()
    assert apps[1].is_ended()
    callers = [line.open() for _ in range(2)]
    for caller in callers:
        caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    apps = [line.accept() for _ in callers]
    for app in apps:
        app.head()
    for app in apps:
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert [caller.answer().status for caller in callers] == [200, 200]
