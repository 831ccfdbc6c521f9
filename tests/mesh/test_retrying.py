"""What a Service's callers ask for again, and what their applications see of it."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset

from tests.kit.http2 import GRPC, POST, GRPCApp, Talk, call, named, serve
from tests.kit.lines import App, Line, Peer
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

Lines = Callable[..., Line]
RETRY = "retry.linkerd.io/"
_ports = itertools.count(7_300)


@pytest.fixture(scope="module")
def pair(mesh: Mesh) -> Iterator[list[Pod]]:
    """Two meshed pods."""
    pods = [mesh.pod(f"again-{number}") for number in range(2)]
    yield pods
    for pod in pods:
        pod.proxy.stop(1)


@pytest.fixture
def port() -> int:
    """Of the applications of one test."""
    return next(_ports)


def retrying(http: str = "503", limit: int = 1) -> dict[str, str]:
    """Annotations."""
    return {f"{RETRY}http": http, f"{RETRY}limit": str(limit)}


def counted(client: Pod, service: str, family: str, protocol: str = "http", **wanted: str) -> float:
    """Of the routes or backends of one Service."""
    return float(client.proxy.metric(f"outbound_{protocol}_route_{family}_total", parent_name=service, **wanted))


def test_a_failure_is_asked_for_again_elsewhere(mesh: Mesh, client: Pod, pair: list[Pod], port: int) -> None:
    address = mesh.service("elsewhere", 80, pair, target=port, annotations=retrying())
    with App(pair[0], port, status=503) as bad, App(pair[1], port) as good:

        def succeeds() -> bool:
            assert client.get(address).body == b"again-1"
            return bad.answered >= 3

        until("three failures", succeeds, 20, 0)
        requests, failed = good.answered, bad.answered
        tries = requests + failed
    name = "elsewhere"
    assert counted(client, name, "request_statuses", http_status="200") == requests
    assert counted(client, name, "request_statuses", http_status="503") == 0
    assert counted(client, name, "backend_requests") == tries
    assert counted(client, name, "backend_response_statuses", http_status="503") == failed
    assert counted(client, name, "backend_response_statuses", http_status="200") == requests
    assert counted(client, name, "retry_requests") == failed
    assert counted(client, name, "retry_successes") == failed
    assert client.proxy.metric("response_total", dst_service=name, status_code="503") == failed


def test_only_what_is_asked_for_is_asked_for_again(mesh: Mesh, client: Pod, pair: list[Pod], port: int) -> None:
    address = mesh.service("only", 80, pair[:1], target=port, annotations=retrying("gateway-error"))
    with App(pair[0], port, status=500) as app:
        assert client.get(address).status == 500
        assert app.answered == 1
        app.status = 503
        address = mesh.service("what", 80, pair[:1], target=port, annotations={f"{RETRY}limit": "5"})
        assert client.get(address).status == 503
        assert app.answered == 2, "it is not said what to ask for again"


def test_after_the_last_try_the_client_gets_the_answer_itself(
    mesh: Mesh, client: Pod, pair: list[Pod], port: int
) -> None:
    address = mesh.service("limit", 80, pair[:1], target=port, annotations=retrying("5xx", 2))
    with App(pair[0], port, status=502) as app:
        answer = client.get(address)
        assert (answer.status, answer.body) == (502, b"again-0")
        assert "l5d-proxy-error" not in answer.headers
        assert app.answered == 3
    assert counted(client, "limit", "retry_requests") == 2
    assert counted(client, "limit", "retry_limit_exceeded") == 1
    assert counted(client, "limit", "retry_successes") == 0


def test_a_budget_that_is_used_up_ends_retries(mesh: Mesh, client: Pod, pair: list[Pod], port: int) -> None:
    annotations = {**retrying(), "retry.tulle.io/budget": "0/1/30s"}
    address = mesh.service("budget", 80, pair[:1], target=port, annotations=annotations)
    with App(pair[0], port, status=503) as app, client.connect(address) as connection:
        caller = Peer(connection)
        for _ in range(40):
            caller.send("GET / HTTP/1.1\r\nhost: budget\r\n\r\n")
            assert caller.answer().status == 503
        assert app.answered == 40 + 30
    assert counted(client, "budget", "retry_requests") == 30
    assert counted(client, "budget", "retry_overflow") == 10


@pytest.mark.parametrize(("size", "tries"), [(60_000, 2), (100_000, 1)])
def test_a_body_is_sent_again_if_it_is_small_enough_to_be_kept(
    lines: Lines, client: Pod, web: Pod, size: int, tries: int
) -> None:
    line = lines(client, web, annotations=retrying())
    caller = line.open()
    caller.send(f"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {size}\r\n\r\n", b"x" * size)
    app = line.accept()
    for number in range(1, tries + 1):
        app.head()
        assert app.exactly(size) == b"x" * size
        app.send(f"HTTP/1.1 503 x\r\ncontent-length: 1\r\n\r\n{number}")
    answer = caller.answer("POST")
    assert (answer.status, answer.body) == (503, str(tries).encode())


@pytest.mark.parametrize(("size", "tries"), [(60_000, 2), (100_000, 1)])
def test_so_it_is_over_http2(lines: Lines, client: Pod, web: Pod, size: int, tries: int) -> None:
    line = lines(client, web, annotations=retrying())
    caller = call(line)
    stream = caller.ask(POST, end=False)
    app: Talk | None = None
    sent = 0
    while sent < size:
        room = min(caller.connection.local_flow_control_window(stream), 16_384, size - sent)
        if room:
            caller.say(stream, b"x" * room)
            sent += room
        elif not caller.listen(0.05):
            app = app or serve(line)
            app.listen(0.5)
    caller.say(stream, end=True)
    app = app or serve(line)
    for _ in range(tries):
        there = app.expect(RequestReceived).stream_id
        assert app.body(there, size) == b"x" * size
        app.expect(StreamEnded, there)
        app.answer(there, b"no", 503)
    assert named(caller.expect(ResponseReceived, stream))[":status"] == "503"
    assert app.quiet(RequestReceived)


def test_a_failed_answer_that_goes_on_is_cut_off(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations=retrying())
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    first = line.accept()
    first.head()
    first.send("HTTP/1.1 503 x\r\ncontent-length: 1000000\r\n\r\nsome")
    second = line.accept()
    second.head()
    second.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert caller.answer().body == b"ok"
    assert first.is_ended()


def test_a_failed_stream_that_goes_on_is_reset(lines: Lines, client: Pod, web: Pod) -> None:
    line = lines(client, web, annotations=retrying())
    caller = call(line)
    stream = caller.ask(POST, body=b"question")
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.fields(there, [(":status", "503")])
    app.say(there, b"late" * 1000)
    assert app.expect(StreamReset, there).error_code == ErrorCodes.CANCEL
    again = app.expect(RequestReceived).stream_id
    assert app.body(again, 8) == b"question"
    app.answer(again, b"answer")
    assert named(caller.expect(ResponseReceived, stream))[":status"] == "200"
    assert caller.body(stream, 6) == b"answer"


def test_a_try_that_takes_too_long_is_made_again_and_its_late_answer_is_nobodys(
    lines: Lines, client: Pod, web: Pod
) -> None:
    line = lines(client, web, annotations={**retrying(), f"{RETRY}timeout": "200ms"})
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    slow = line.accept()
    slow.head()
    second = line.accept()
    second.head()
    with contextlib.suppress(ConnectionError):
        slow.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
    # The last try has no limit of its own.
    time.sleep(0.4)
    second.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
    assert caller.answer().body == b"good"
    assert caller.is_silent()
    name = f"line-{line.port}"
    assert counted(client, name, "backend_response_statuses", error="RESPONSE_HEADERS_TIMEOUT") == 1
    assert counted(client, name, "request_statuses", http_status="200") == 1


def test_a_stream_that_takes_too_long_is_made_again_and_its_late_answer_is_nobodys(
    lines: Lines, client: Pod, web: Pod
) -> None:
    line = lines(client, web, annotations={**retrying(), f"{RETRY}timeout": "200ms"})
    caller = call(line)
    stream = caller.ask(POST, body=b"question")
    app = serve(line)
    slow = app.expect(RequestReceived).stream_id
    time.sleep(0.5)
    # The proxy has given the stream up, and its application has not heard of it yet.
    app.fields(slow, [(":status", "200")])
    app.say(slow, b"late")
    again = app.expect(RequestReceived).stream_id
    assert app.expect(StreamReset, slow).error_code == ErrorCodes.CANCEL
    assert app.body(again, 8) == b"question"
    app.answer(again, b"good")
    assert caller.body(stream, 4) == b"good"
    assert caller.quiet(DataReceived)


def test_grpc_is_asked_for_again_by_its_code(mesh: Mesh, client: Pod, pair: list[Pod], port: int) -> None:
    annotations = {f"{RETRY}grpc": "unavailable"}
    address = mesh.service("grpc-again", 80, pair, target=port, annotations=annotations)
    with GRPCApp(pair[0], port, code=14) as bad, GRPCApp(pair[1], port):
        caller = Talk(Peer(client.connect(address)), True)

        def succeeds() -> bool:
            stream = caller.ask(GRPC, body=b"\0\0\0\0\1x")
            assert caller.body(stream, 6) == b"\0\0\0\0\1x"
            caller.expect(StreamEnded, stream)
            return bad.answered >= 3

        until("three failures", succeeds, 20, 0)
        assert counted(client, "grpc-again", "retry_successes", "grpc") == bad.answered
        assert client.proxy.metric("response_total", dst_service="grpc-again", grpc_status="14") == bad.answered
        bad.code = 13

        def fails() -> bool:
            stream = caller.ask(GRPC, body=b"\0\0\0\0\1x")
            head = named(caller.expect(ResponseReceived, stream))
            caller.expect(StreamEnded, stream)
            return head.get("grpc-status") == "13"

        until("another code is nobody's to ask for again", fails, 20, 0)
        caller.peer.close()
