"""HTTP/1 through both proxies, as a client and an application see it."""

import hashlib
import os
import threading
from collections.abc import Callable

import pytest

from tests.kit.lines import Line, in_thread
from tests.kit.topology import Pod

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_a_request_arrives_with_its_callers_name_over_mutual_tls(line: Line, client: Pod, web: Pod) -> None:
    caller = line.open()
    caller.send("POST /a?b=c HTTP/1.1\r\nHost: web\r\nX-Thing: 1\r\nContent-Length: 4\r\n\r\nbody")
    app = line.accept()
    first, fields = app.head()
    assert first == "POST /a?b=c HTTP/1.1"
    assert fields["host"] == "web"
    assert fields["x-thing"] == "1"
    assert fields["l5d-client-id"] == client.identity
    assert app.exactly(4) == b"body"
    app.send("HTTP/1.1 201 Made\r\nX-Other: 2\r\nContent-Length: 3\r\n\r\nyes")
    answer = caller.answer()
    assert (answer.status, answer.headers["x-other"], answer.body) == (201, "2", b"yes")
    port = {"target_port": str(line.port), "status_code": "201", "classification": "success"}
    assert client.proxy.metric("response_total", direction="outbound", tls="true", server_id=web.identity, **port) == 1
    assert web.proxy.metric("response_total", direction="inbound", tls="true", client_id=client.identity, **port) == 1


def test_connections_are_kept_on_both_sides(line: Line) -> None:
    caller = line.open()
    app = None
    for number in range(5):
        caller.send(f"GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n")
        app = app or line.accept()
        assert app.head()[0] == f"GET /{number} HTTP/1.1"
        app.send(OK)
        assert caller.answer().body == b"ok"
    assert line.no_connection()


def test_pipelined_requests_are_answered_in_order(line: Line) -> None:
    caller = line.open()
    caller.send(*(f"GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n" for number in range(4)))
    app = line.accept()
    for number in range(4):
        assert app.head()[0] == f"GET /{number} HTTP/1.1"
        assert app.is_silent(0.1), "the next request came before the answer to this one"
        app.send(f"HTTP/1.1 200 OK\r\nx-number: {number}\r\ncontent-length: 2\r\n\r\nok")
    for number in range(4):
        assert caller.head()[1]["x-number"] == str(number)
        assert caller.exactly(2) == b"ok"


def test_a_pipelined_body_is_not_taken_for_a_request(line: Line) -> None:
    caller = line.open()
    inner = "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"
    caller.send(
        f"POST /1 HTTP/1.1\r\nHost: web\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        "GET /2 HTTP/1.1\r\nHost: web\r\n\r\n",
    )
    app = line.accept()
    assert app.head()[0] == "POST /1 HTTP/1.1"
    assert app.exactly(len(inner)) == inner.encode()
    app.send(OK)
    assert app.head()[0] == "GET /2 HTTP/1.1"
    app.send(OK)
    caller.head()
    assert caller.exactly(2) == b"ok"
    assert caller.head()[0] == "HTTP/1.1 200 OK"


def test_chunks_and_trailers_pass_both_ways(line: Line) -> None:
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n")
    app = line.accept()
    assert app.head()[1]["transfer-encoding"] == "chunked"
    assert app.until(b"abc\r\n") == b"3\r\nabc\r\n", "a chunk waits for no other"
    caller.send("2;ext=1\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 7\r\n\r\n")
    assert app.until(b"0\r\n").endswith(b"de\r\n0\r\n")
    trailers = app.until(b"\r\n\r\n").lower()
    assert b"x-sum: 5\r\n" in trailers
    assert b"content-length" not in trailers, "RFC 9110 section 6.5.1: a trailer frames nothing"
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert caller.head()[1]["transfer-encoding"] == "chunked"
    assert caller.until(b"hello\r\n") == b"5\r\nhello\r\n"
    app.send("0\r\nX-Done: yes\r\n\r\n")
    assert b"x-done: yes\r\n" in caller.until(b"\r\n\r\n").lower()


def test_an_expected_100_continue_is_the_applications_own(line: Line) -> None:
    caller = line.open()
    caller.send("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    app = line.accept()
    assert app.head()[1]["expect"] == "100-continue"
    assert caller.is_silent(), "nobody but the application may say 100"
    app.send("HTTP/1.1 100 Continue\r\n\r\n")
    assert caller.head()[0] == "HTTP/1.1 100 Continue"
    caller.send("body")
    assert app.exactly(4) == b"body"
    app.send(OK)
    assert caller.answer().body == b"ok"


def test_an_expectation_may_be_answered_with_a_refusal(line: Line) -> None:
    caller = line.open()
    caller.send("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert caller.head()[0].startswith("HTTP/1.1 413")
    assert caller.is_ended(), "the body that never came cannot be told from a next request"


@pytest.mark.parametrize(
    ("request_line", "response", "seen"),
    [
        ("HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", ("content-length", "9")),
        ("HEAD / HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ("transfer-encoding", "chunked")),
        ("GET / HTTP/1.1", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", ("x-a", "b")),
        ("GET / HTTP/1.1", 'HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: "x"\r\n\r\n', ("etag", '"x"')),
    ],
    ids=["HEAD with a length", "HEAD with chunks", "204", "304"],
)
def test_answers_without_a_body(line: Line, request_line: str, response: str, seen: tuple[str, str]) -> None:
    caller = line.open()
    caller.send(f"{request_line}\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send(response)
    _, fields = caller.head()
    assert fields[seen[0]] == seen[1]
    caller.send("GET /next HTTP/1.1\r\nHost: web\r\n\r\n")
    assert app.head()[0] == "GET /next HTTP/1.1", "the connection was not kept"
    app.send(OK)
    assert caller.answer().body == b"ok"


def test_http_1_0_keeps_its_version_and_ends_its_connection(line: Line) -> None:
    caller = line.open()
    caller.send("GET /old HTTP/1.0\r\n\r\n")
    app = line.accept()
    first, fields = app.head()
    assert first == "GET /old HTTP/1.0"
    assert fields.get("connection", "close") == "close"
    app.send("HTTP/1.0 200 OK\r\n\r\nuntil the end")
    app.close()
    assert caller.to_end().endswith(b"\r\n\r\nuntil the end")


def test_http_1_0_with_keep_alive(line: Line) -> None:
    caller = line.open()
    for _ in range(2):
        caller.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: web\r\n\r\n")
        app = line.accept()
        app.head()
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        _, fields = caller.head()
        assert fields["connection"] == "keep-alive"
        assert caller.exactly(2) == b"ok"
        app.close()


def test_a_body_that_ends_with_its_connection_reaches_a_1_1_client_whole(line: Line) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\n\r\nsome")
    app.send(" more")
    app.close()
    assert caller.answer().body == b"some more"


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_that_is_cut_short_is_not_passed_off_as_whole(line: Line, framing: str) -> None:
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
    app = line.accept()
    app.head()
    app.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nsome\r\n")
    app.close()
    try:
        seen = caller.to_end()
    except ConnectionResetError:
        return
    assert not seen.endswith(b"0\r\n\r\n")
    assert b"Content-Length: 100" not in seen.title() or len(seen.partition(b"\r\n\r\n")[2]) < 100


def test_an_answer_may_come_before_the_request_is_whole(line: Line) -> None:
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\npart")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    first, _ = caller.head()
    assert first == "HTTP/1.1 401 Unauthorized"
    assert caller.exactly(2) == b"no"
    assert caller.is_ended()


@pytest.mark.parametrize("direction", ["request", "response"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_large_bodies_arrive_as_they_were_sent(line: Line, direction: str, chunked: bool) -> None:
    body = os.urandom(6_000_000)
    digest = hashlib.sha256(body).digest()
    size = 70_000
    framed = (
        b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]) for at in range(0, len(body), size)
        )
        + b"0\r\n\r\n"
        if chunked
        else body
    )
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    caller = line.open()

    def read_body(peer: object) -> bytes:
        if not chunked:
            return peer.exactly(len(body))  # type: ignore[attr-defined, no-any-return]
        found = b""
        while length := int(peer.until(b"\r\n").partition(b";")[0], 16):  # type: ignore[attr-defined]
            found += peer.exactly(length)  # type: ignore[attr-defined]
            assert peer.exactly(2) == b"\r\n"  # type: ignore[attr-defined]
        return found

    if direction == "request":
        with in_thread(lambda: caller.send(f"POST / HTTP/1.1\r\nHost: web\r\n{framing}\r\n\r\n", framed)):
            app = line.accept()
            app.head()
            assert hashlib.sha256(read_body(app)).digest() == digest
        app.send(OK)
        assert caller.answer().status == 200
    else:
        caller.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        app = line.accept()
        app.head()
        with in_thread(lambda: app.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n", framed)):
            caller.head()
            assert hashlib.sha256(read_body(caller)).digest() == digest


def test_a_reader_that_rests_holds_the_writer_back(line: Line, client: Pod, web: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    app.socket.settimeout(1.5)
    with pytest.raises(TimeoutError):
        app.send(*[piece] * 3000)
    assert client.proxy.metric("process_resident_memory_bytes") < 80_000_000
    assert web.proxy.metric("process_resident_memory_bytes") < 80_000_000


def test_fields_of_one_hop_stay_there(line: Line) -> None:
    caller = line.open()
    caller.send(
        "GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n"
        "Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-Kept: 2\r\n\r\n"
    )
    app = line.accept()
    _, fields = app.head()
    assert fields["x-kept"] == "2"
    assert not {"x-secret", "keep-alive", "proxy-connection"} & set(fields)
    app.send("HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nContent-Length: 0\r\n\r\n")
    _, fields = caller.head()
    assert "x-inner" not in fields


def test_a_spoofed_identity_is_replaced(line: Line, client: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\nl5d-client-id: admin\r\nL5D-Client-Id: root\r\n\r\n")
    _, fields = line.accept().head()
    assert fields["l5d-client-id"] == client.identity


def test_requests_beside_each_other_do_not_mix(line: Line) -> None:
    count = 20
    callers = [line.open() for _ in range(count)]
    for number, caller in enumerate(callers):
        caller.send(f"GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n")
    apps = [line.accept() for _ in range(count)]
    for app in apps[::-1]:
        path = app.head()[0].split()[1]
        app.send(f"HTTP/1.1 200 OK\r\ncontent-length: {len(path)}\r\n\r\n{path}")
    for number, caller in enumerate(callers):
        assert caller.answer().body == f"/{number}".encode()


def test_a_caller_that_leaves_takes_its_request_along(line: Line, client: Pod) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    app = line.accept()
    app.head()
    caller.reset()
    assert app.is_ended()
    failed = {"target_port": str(line.port), "classification": "failure", "error": "cancelled"}
    done = threading.Event()
    for _ in range(50):
        if client.proxy.metric("response_total", direction="outbound", **failed) == 1:
            break
        done.wait(0.1)
    else:
        raise AssertionError("the cancelled request was not counted")


def test_a_request_that_goes_wrong_while_it_is_answered(line: Line) -> None:
    """Its caller is cut off, and what its application still says then has no reader."""
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    app = line.accept()
    app.until(b"hello\r\n")
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n")
    caller.until(b"world\r\n")
    caller.send("no size\r\n")
    assert caller.is_ended()
    assert app.is_ended()


def test_a_caller_that_has_said_all_is_still_answered(line: Line) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    caller.finish()
    app = line.accept()
    app.head()
    app.send(OK)
    assert caller.to_end().endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("calling", ["client", "outsider"])
def test_all_that_a_caller_sent_before_it_ended_is_answered(
    request: pytest.FixtureRequest, lines: Callable[..., Line], web: Pod, calling: str
) -> None:
    line = lines(request.getfixturevalue(calling), web, direct=calling == "outsider")
    caller = line.open()
    caller.send(*(f"GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n" for number in range(4)))
    caller.finish()
    app = line.accept()
    for number in range(4):
        assert app.head()[0] == f"GET /{number} HTTP/1.1"
        app.send(f"HTTP/1.1 200 OK\r\nx-number: {number}\r\ncontent-length: 2\r\n\r\nok")
    for number in range(4):
        first, fields = caller.head()
        assert (first, fields["x-number"]) == ("HTTP/1.1 200 OK", str(number))
        assert fields.get("connection") == ("close" if number == 3 else None)
        assert caller.exactly(2) == b"ok"
    assert caller.is_ended()


@pytest.mark.parametrize(
    "rest", ["GET /half HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nhal"]
)
def test_what_a_caller_did_not_finish_before_it_ended_is_dropped(line: Line, rest: str) -> None:
    caller = line.open()
    caller.send(*(f"GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n" for number in range(2)), rest)
    caller.finish()
    app = line.accept()
    for number in range(2):
        assert app.head()[0] == f"GET /{number} HTTP/1.1"
        app.send(OK)
    assert caller.to_end().count(b"HTTP/1.1 200 OK") == 2


def test_a_caller_that_wants_no_more_answers_gets_none(line: Line) -> None:
    """RFC 9112 section 9.6: what follows a request with `Connection: close` is not looked at."""
    caller = line.open()
    caller.send("GET /1 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: web\r\n\r\n")
    caller.finish()
    app = line.accept()
    assert app.head()[0] == "GET /1 HTTP/1.1"
    app.send(OK)
    assert caller.to_end().count(b"HTTP/1.1 200 OK") == 1
    assert line.no_connection()
