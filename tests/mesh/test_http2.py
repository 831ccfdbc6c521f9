"""HTTP/2 over a mesh: streams, their ends, and what each side learns of the other."""

import signal
import time
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from tests.kit.http2 import GET, GRPC, POST, Talk, call, named, serve, values
from tests.kit.lines import Line, Peer
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

Lines = Callable[..., Line]


def test_a_request_and_its_response(line: Line, client: Pod, web: Pod) -> None:
    caller = call(line)
    stream = caller.ask([*POST, ("x-one", "1"), ("x-two", "a"), ("x-two", "b")], body=b"question")
    app = serve(line)
    request = app.expect(RequestReceived)
    assert list(named(request).items())[:4] == POST
    assert values(request, "x-two") == ["a", "b"]
    assert app.body(request.stream_id, 8) == b"question"
    app.expect(StreamEnded)
    app.answer(request.stream_id, b"answer", 201)
    response = named(caller.expect(ResponseReceived, stream))
    assert response[":status"] == "201"
    assert caller.body(stream, 6) == b"answer"
    caller.expect(StreamEnded, stream)
    outbound = {"direction": "outbound", "target_port": str(line.port), "tls": "true", "server_id": web.identity}
    assert client.proxy.metric("request_total", **outbound) == 1
    assert client.proxy.metric("response_total", status_code="201", classification="success", **outbound) == 1
    inbound = {"direction": "inbound", "target_port": str(line.port), "tls": "true", "client_id": client.identity}
    assert web.proxy.metric("request_total", **inbound) == 1


def test_streams_do_not_wait_for_each_other(line: Line) -> None:
    caller = call(line)
    first, second = caller.ask(), caller.ask()
    app = serve(line)
    streams = [app.expect(RequestReceived).stream_id for _ in range(2)]
    app.answer(streams[1], b"second")
    assert caller.body(second, 6) == b"second"
    app.answer(streams[0], b"first")
    assert caller.body(first, 5) == b"first"


def test_the_client_is_named_and_cannot_name_itself(line: Line, client: Pod) -> None:
    caller = call(line)
    caller.ask([*GET, ("l5d-client-id", "someone.else"), ("l5d-dst-override", "x"), ("l5d-own", "kept")])
    request = serve(line).expect(RequestReceived)
    assert values(request, "l5d-client-id") == [client.identity]
    assert "l5d-dst-override" not in named(request)
    assert named(request)["l5d-own"] == "kept"


def test_trailers_pass_both_ways(line: Line) -> None:
    caller = call(line)
    stream = caller.ask(POST, end=False)
    caller.say(stream, b"body")
    caller.fields(stream, [("x-sum", "4")], end=True)
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    assert named(app.expect(TrailersReceived, there)) == {"x-sum": "4"}
    app.fields(there, [(":status", "200")])
    app.say(there, b"reply")
    app.fields(there, [("x-end", "yes"), ("x-more", "too")], end=True)
    assert caller.body(stream, 5) == b"reply"
    assert named(caller.expect(TrailersReceived, stream)) == {"x-end": "yes", "x-more": "too"}
    caller.expect(StreamEnded, stream)


def test_interim_responses_pass(line: Line) -> None:
    caller = call(line)
    stream = caller.ask()
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.fields(there, [(":status", "103"), ("link", "</a.css>")])
    assert named(caller.expect(InformationalResponseReceived, stream)) == {":status": "103", "link": "</a.css>"}
    app.answer(there, b"done")
    assert named(caller.expect(ResponseReceived, stream))[":status"] == "200"


@pytest.mark.parametrize("code", [ErrorCodes.CANCEL, ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.INTERNAL_ERROR])
def test_a_reset_keeps_its_code_towards_the_application(line: Line, code: int) -> None:
    caller = call(line)
    stream = caller.ask(POST, end=False)
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    caller.reset(stream, code)
    assert app.expect(StreamReset, there).error_code == code


@pytest.mark.parametrize("started", [False, True], ids=["before-headers", "mid-body"])
@pytest.mark.parametrize("code", [ErrorCodes.CANCEL, ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.HTTP_1_1_REQUIRED])
def test_a_reset_keeps_its_code_towards_the_client(line: Line, code: int, started: bool) -> None:
    caller = call(line)
    stream = caller.ask(POST, body=b"x")
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    if started:
        app.fields(there, [(":status", "200")])
        app.say(there, b"part")
        assert caller.body(stream, 4) == b"part"
    app.reset(there, code)
    assert caller.expect(StreamReset, stream).error_code == code
    other = caller.ask()
    app.answer(app.expect(RequestReceived).stream_id, b"ok")
    assert caller.body(other, 2) == b"ok"


def test_a_refused_stream_is_tried_once_more(line: Line) -> None:
    caller = call(line)
    stream = caller.ask(POST, body=b"payload")
    app = serve(line)
    app.reset(app.expect(RequestReceived).stream_id, ErrorCodes.REFUSED_STREAM)
    again = app.expect(RequestReceived)
    assert app.body(again.stream_id, 7) == b"payload"
    app.answer(again.stream_id, b"ok")
    assert caller.body(stream, 2) == b"ok"


def test_streams_above_a_goaway_go_to_a_new_connection(line: Line) -> None:
    caller = call(line)
    one = caller.ask()
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.connection.close_connection(last_stream_id=there)
    app.flush()
    two = caller.ask()
    second = serve(line)
    second.answer(second.expect(RequestReceived).stream_id, b"second")
    assert caller.body(two, 6) == b"second"
    assert caller.quiet(StreamReset), "the stream below the GOAWAY is still waited for"
    app.peer.close()
    second.answer(second.expect(RequestReceived).stream_id, b"first, idempotent, once more")
    assert caller.body(one, 5).startswith(b"first")


def test_a_request_that_came_back_complete_early_ends_the_upload(line: Line) -> None:
    caller = call(line)
    stream = caller.ask(POST, end=False)
    caller.say(stream, b"some")
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.fields(there, [(":status", "413")], end=True)
    app.reset(there, ErrorCodes.NO_ERROR)
    assert named(caller.expect(ResponseReceived, stream))[":status"] == "413"
    assert caller.expect(StreamReset, stream).error_code == ErrorCodes.NO_ERROR


def test_extended_connect_is_a_tunnel(line: Line) -> None:
    """RFC 8441: WebSocket over HTTP/2."""
    caller = call(line)
    until(
        "settings", lambda: caller.connection.remote_settings.enable_connect_protocol or (caller.listen(1) and None), 5
    )
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
    stream = caller.ask(fields, end=False)
    app = serve(line)
    app.connection.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    request = app.expect(RequestReceived)
    assert named(request)[":protocol"] == "websocket"
    app.fields(request.stream_id, [(":status", "200")])
    caller.expect(ResponseReceived, stream)
    for word in (b"ping", b"pong"):
        caller.say(stream, word)
        assert app.body(request.stream_id, 4) == word
        app.say(request.stream_id, word)
        assert caller.body(stream, 4) == word


def test_a_slow_reader_holds_back_its_own_writer_only(line: Line) -> None:
    caller = Talk(line.open(), True, credits=False)
    slow = caller.ask()
    app = serve(line)
    there = app.expect(RequestReceived).stream_id
    app.fields(there, [(":status", "200")])
    sent = 0
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        window = min(app.connection.local_flow_control_window(there), 16_384)
        if window > 0:
            app.say(there, b"x" * window)
            sent += window
        elif not app.listen(0.5):
            break
    assert 65_535 <= sent <= 4 * 65_535, "one window at the client and one in each proxy"
    caller.credits = True
    other = caller.ask()
    caller.connection.increment_flow_control_window(1 << 20)
    caller.flush()
    app.answer(app.expect(RequestReceived).stream_id, b"quick")
    assert caller.body(other, 5) == b"quick"
    assert slow


def test_requests_of_one_connection_go_to_two_endpoints(mesh: Mesh, client: Pod, web: Pod) -> None:
    other = mesh.pod("web-two")
    listeners = [pod.listen(9_400) for pod in (web, other)]
    try:
        address = mesh.service("two", 9_400, [web, other])
        caller = Talk(Peer(client.connect(address)), True)
        apps: dict[int, Talk] = {}
        streams = [caller.ask() for _ in range(30)]
        for each in listeners:
            each.settimeout(10)
            apps[id(each)] = Talk(Peer(each.accept()[0]), False)
        answered = dict.fromkeys(apps, 0)
        deadline = time.monotonic() + 10
        while sum(answered.values()) < len(streams) and time.monotonic() < deadline:
            for key, app in apps.items():
                app.listen(0.05)
                for event in [e for e in app.events if isinstance(e, RequestReceived)]:
                    app.events.remove(event)
                    app.answer(event.stream_id, b"ok")
                    answered[key] += 1
        assert sum(answered.values()) == len(streams)
        assert min(answered.values()) >= 5, answered
        for stream in streams:
            assert caller.body(stream, 2) == b"ok"
    finally:
        for each in listeners:
            each.close()


def test_grpc_is_counted_by_its_status(line: Line, client: Pod) -> None:
    caller = call(line)
    app: Talk | None = None
    for number in ("0", "5", "14"):
        stream = caller.ask(GRPC, body=b"\0\0\0\0\1x")
        app = app or serve(line)
        there = app.expect(RequestReceived).stream_id
        if number == "5":
            app.fields(there, [(":status", "200"), ("grpc-status", number)], end=True)
        else:
            app.fields(there, [(":status", "200"), ("content-type", "application/grpc")])
            app.say(there, b"\0\0\0\0\1y")
            app.fields(there, [("grpc-status", number)], end=True)
        caller.expect(StreamEnded, stream)
    counted = {"direction": "outbound", "target_port": str(line.port), "status_code": "200"}
    for number, classification in (("0", "success"), ("5", "success"), ("14", "failure")):
        found = client.proxy.metric("response_total", grpc_status=number, classification=classification, **counted)
        assert found == 1, number


def test_the_proxy_answers_grpc_in_its_own_terms(mesh: Mesh, client: Pod) -> None:
    address = mesh.service("empty", 9_401, [])
    caller = Talk(Peer(client.connect(address)), True)
    stream = caller.ask(GRPC, body=b"\0\0\0\0\1x")
    plain = caller.ask(GET)
    answer = named(caller.expect(ResponseReceived, stream))
    assert answer[":status"] == "200"
    assert answer["grpc-status"] == "4"
    assert "failfast" in answer["l5d-proxy-error"]
    assert named(caller.expect(ResponseReceived, plain))[":status"] == "504"


def test_a_lost_connection_is_502_and_the_next_request_gets_another(line: Line) -> None:
    caller = call(line)
    stream = caller.ask(POST, body=b"x")
    app = serve(line)
    app.expect(RequestReceived)
    app.peer.reset()
    assert named(caller.expect(ResponseReceived, stream))[":status"] == "502"
    again = caller.ask()
    other = serve(line)
    other.answer(other.expect(RequestReceived).stream_id, b"ok")
    assert caller.body(again, 2) == b"ok"


def test_large_headers_pass_and_too_large_ones_are_refused(line: Line) -> None:
    caller = call(line)
    big = [*GET, *((f"x-{i}", "v" * 1000) for i in range(30))]
    stream = caller.ask(big)
    app = serve(line)
    request = app.expect(RequestReceived)
    assert sum(len(value) for _, value in request.headers) > 30_000
    app.answer(request.stream_id, b"ok")
    assert caller.body(stream, 2) == b"ok"
    many = caller.ask([*GET, *((f"x-{i}", "v") for i in range(200))])
    assert named(caller.expect(ResponseReceived, many))[":status"] == "431"


def test_a_proxy_that_drains_says_so_and_finishes(mesh: Mesh, client: Pod) -> None:
    pod = mesh.pod("h2-leaving")
    line = Line(mesh, pod, pod, direct=False)
    try:
        inner = Line(mesh, client, pod)
        caller = call(inner)
        stream = caller.ask()
        app = serve(inner)
        there = app.expect(RequestReceived).stream_id
        pod.proxy.signal(signal.SIGTERM)
        time.sleep(1.5)
        app.answer(there, b"late")
        assert caller.body(stream, 4) == b"late"
        assert caller.quiet(ConnectionTerminated), "the client's own proxy goes on"
        assert caller.quiet(DataReceived)
    finally:
        line.__exit__()
