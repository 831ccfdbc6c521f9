"""What h2spec is to a server, for our client side: an application that breaks each rule of HTTP/2 once.

After every fault the caller's stream has ended without passing for a good answer, the faulty connection was left with
the right error, and the caller's own connection serves its next request.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.kit import frames
from tests.kit.frames import Code, Kind, Setting, Talker, data, frame, headers, literal, settings
from tests.kit.lines import Line
from tests.kit.topology import Pod

Fault = Callable[[int], bytes]
"""What the application sends instead of, or after, a good answer to the request on a stream."""

OK: Final = literal([(b":status", b"200")])
WITH_BODY: Final = literal([(b":status", b"200"), (b"content-length", b"2")])


def answer(*fields: tuple[bytes, bytes], status: bytes = b"200") -> Fault:
    """A head that should not be taken, and a body."""
    block = literal([(b":status", status), *fields])
    return lambda stream: headers(stream, block, end=False) + data(stream, b"ok", end=True)


def block(*fields: tuple[bytes, bytes]) -> Fault:
    """A head of exactly these fields, that ends its stream."""
    return lambda stream: headers(stream, literal(fields))


CONNECTION: Final[dict[str, tuple[Code, Fault]]] = {
    "4.2 a DATA frame larger than was allowed": (
        Code.FRAME_SIZE_ERROR, lambda s: headers(s, OK, end=False) + data(s, bytes(16_385)),
    ),
    "4.2 a HEADERS frame larger than was allowed": (Code.FRAME_SIZE_ERROR, lambda s: headers(s, bytes(16_385))),
    "4.3 a field that refers to no entry": (Code.COMPRESSION_ERROR, lambda s: headers(s, b"\xff\xff\x7f")),
    "4.3 a table larger than was allowed": (Code.COMPRESSION_ERROR, lambda s: headers(s, b"\x3f\xe1\xff\x7f" + OK)),
    "4.3 frames of another kind within a section": (
        Code.PROTOCOL_ERROR, lambda s: headers(s, OK, whole=False) + data(s, b"x", end=True),
    ),
    "4.3 another stream within a section": (
        Code.PROTOCOL_ERROR, lambda s: headers(s, OK, whole=False) + frames.continuation(s + 2, OK),
    ),
    "5.1 DATA on an idle stream": (Code.PROTOCOL_ERROR, lambda s: data(s + 200, b"x")),
    "5.1 RST_STREAM on an idle stream": (Code.PROTOCOL_ERROR, lambda s: frames.reset(s + 200)),
    "5.1 WINDOW_UPDATE on an idle stream": (Code.PROTOCOL_ERROR, lambda s: frames.window_update(s + 200, 1)),
    "5.1.1 a response on a stream nobody opened": (Code.PROTOCOL_ERROR, lambda s: headers(s + 200, OK)),
    "5.1.1 a stream of the server's own": (Code.PROTOCOL_ERROR, lambda _: headers(2, OK)),
    "6.1 DATA on stream 0": (Code.PROTOCOL_ERROR, lambda _: data(0, b"x")),
    "6.1 padding longer than its frame": (
        Code.PROTOCOL_ERROR, lambda s: headers(s, OK, end=False) + frame(Kind.DATA, frames.PADDED, s, b"\x05abc"),
    ),
    "6.2 HEADERS on stream 0": (Code.PROTOCOL_ERROR, lambda _: headers(0, OK)),
    "6.2 padding longer than its section": (
        Code.PROTOCOL_ERROR,
        lambda s: frame(Kind.HEADERS, frames.PADDED | frames.END_HEADERS, s, b"\xff" + OK),
    ),
    "6.3 PRIORITY on stream 0": (Code.PROTOCOL_ERROR, lambda _: frame(Kind.PRIORITY, 0, 0, bytes(5))),
    "6.4 RST_STREAM on stream 0": (Code.PROTOCOL_ERROR, lambda _: frames.reset(0)),
    "6.4 RST_STREAM of three bytes": (Code.FRAME_SIZE_ERROR, lambda s: frame(Kind.RST_STREAM, 0, s, bytes(3))),
    "6.5 SETTINGS on a stream": (Code.PROTOCOL_ERROR, lambda s: frame(Kind.SETTINGS, 0, s)),
    "6.5 an acknowledgement with content": (
        Code.FRAME_SIZE_ERROR, lambda _: frame(Kind.SETTINGS, frames.ACK, 0, bytes(6)),
    ),
    "6.5 SETTINGS of five bytes": (Code.FRAME_SIZE_ERROR, lambda _: frame(Kind.SETTINGS, 0, 0, bytes(5))),
    "6.5.2 a server that allows push": (Code.PROTOCOL_ERROR, lambda _: settings((Setting.ENABLE_PUSH, 1))),
    "6.5.2 ENABLE_PUSH of 2": (Code.PROTOCOL_ERROR, lambda _: settings((Setting.ENABLE_PUSH, 2))),
    "6.5.2 a window of 2^31": (Code.FLOW_CONTROL_ERROR, lambda _: settings((Setting.INITIAL_WINDOW_SIZE, 1 << 31))),
    "6.5.2 frames of 16383": (Code.PROTOCOL_ERROR, lambda _: settings((Setting.MAX_FRAME_SIZE, 16_383))),
    "6.5.2 frames of 2^24": (Code.PROTOCOL_ERROR, lambda _: settings((Setting.MAX_FRAME_SIZE, 1 << 24))),
    "6.6 PUSH_PROMISE though it was forbidden": (
        Code.PROTOCOL_ERROR,
        lambda s: frame(
            Kind.PUSH_PROMISE, frames.END_HEADERS, s, struct.pack(">I", 2) + literal(frames.request(b"/pushed"))
        ),
    ),
    "6.7 PING on a stream": (Code.PROTOCOL_ERROR, lambda s: frame(Kind.PING, 0, s, bytes(8))),
    "6.7 PING of seven bytes": (Code.FRAME_SIZE_ERROR, lambda _: frame(Kind.PING, 0, 0, bytes(7))),
    "6.8 GOAWAY on a stream": (Code.PROTOCOL_ERROR, lambda s: frame(Kind.GOAWAY, 0, s, bytes(8))),
    "6.9 an increment of 0 for the connection": (Code.PROTOCOL_ERROR, lambda _: frames.window_update(0, 0)),
    "6.9 WINDOW_UPDATE of three bytes": (Code.FRAME_SIZE_ERROR, lambda _: frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3))),
    "6.9.1 the connection's window beyond 2^31": (
        Code.FLOW_CONTROL_ERROR, lambda _: frames.window_update(0, 0x7FFF_FFFF),
    ),
    "6.9.2 a stream's window beyond 2^31 by a setting": (
        Code.FLOW_CONTROL_ERROR,
        lambda s: frames.window_update(s, 0x7FFF_0000) + settings((Setting.INITIAL_WINDOW_SIZE, 0x1_0000)),
    ),
    "6.10 CONTINUATION of nothing": (Code.PROTOCOL_ERROR, lambda s: frames.continuation(s, OK)),
}  # fmt: skip

STREAM: Final[dict[str, Fault]] = {
    "6.3 PRIORITY of four bytes": lambda s: frame(Kind.PRIORITY, 0, s, bytes(4)),
    "6.9 an increment of 0 for a stream": lambda s: frames.window_update(s, 0),
    "6.9.1 a stream's window beyond 2^31": lambda s: frames.window_update(s, 0x7FFF_FFFF),
    "8.1 DATA before HEADERS": lambda s: data(s, b"ok", end=True),
    "8.1 trailers that do not end": lambda s: (
        headers(s, OK, end=False) + headers(s, literal([(b"x", b"y")]), end=False)
    ),
    "8.1 an informational response that ends": block((b":status", b"103")),
    "8.1.1 more than content-length": lambda s: headers(s, WITH_BODY, end=False) + data(s, b"much", end=True),
    "8.1.1 less than content-length": lambda s: headers(s, WITH_BODY, end=False) + data(s, b"m", end=True),
    "8.1.1 content-length without a body": lambda s: headers(s, WITH_BODY),
    "8.1.1 two content-lengths": answer((b"content-length", b"2"), (b"content-length", b"3")),
    "8.1.1 content-length +2": answer((b"content-length", b"+2")),
    "8.2.1 a name in capitals": answer((b"X-Name", b"1")),
    "8.2.1 a name with a space": answer((b"x name", b"1")),
    "8.2.1 a name with a colon": answer((b"x:name", b"1")),
    "8.2.1 an empty name": answer((b"", b"1")),
    "8.2.1 a line break in a value": answer((b"x", b"a\r\nset-cookie: b")),
    "8.2.1 LF in a value": answer((b"x", b"a\nb")),
    "8.2.1 NUL in a value": answer((b"x", b"a\0b")),
    "8.2.2 connection": answer((b"connection", b"close")),
    "8.2.2 transfer-encoding": answer((b"transfer-encoding", b"chunked")),
    "8.2.2 keep-alive": answer((b"keep-alive", b"timeout=5")),
    "8.2.2 upgrade": answer((b"upgrade", b"h2c")),
    "8.3 an unknown pseudo-field": answer((b":thing", b"1")),
    "8.3 a request's pseudo-field": answer((b":path", b"/")),
    "8.3 a pseudo-field after a field": block((b"x", b"1"), (b":status", b"200")),
    "8.3 a pseudo-field in trailers": lambda s: headers(s, OK, end=False) + headers(s, OK),
    "8.3.2 no status": block((b"x", b"1")),
    "8.3.2 two statuses": answer((b":status", b"200")),
    "8.3.2 a status of two digits": answer(status=b"20"),
    "8.3.2 a status of letters": answer(status=b"abc"),
    "8.6 switching protocols": block((b":status", b"101")),
}


@pytest.fixture
def way(line: Line, outsider: Pod, web: Pod) -> Iterator[tuple[Talker, Line]]:
    """A caller's connection to the meshed pod's proxy, and where the application accepts."""
    with Talker(outsider.connect((web.ip, line.port)), is_client=True).open() as caller:
        caller.begun()
        yield caller, line


def serve(line: Line, *pairs: tuple[int, int]) -> tuple[Talker, int]:
    """The application takes a connection and the request on it."""
    server = Talker(line.accept().socket, is_client=False).open(*pairs).begun()
    return server, server.head()[0]


def outcome(caller: Talker, stream: int) -> str:
    """How a request ended for its caller: a status of ours, a reset, or `taken` for what passed as a good answer."""
    while True:
        found = caller.until(lambda each: each.stream == stream and each.kind in (Kind.HEADERS, Kind.RST_STREAM), 4)
        if found.kind == Kind.RST_STREAM:
            return f"reset {Code(found.code).name}"
        status = dict(caller.decoder.decode(found.payload, raw=True))[b":status"].decode()
        if status[0] == "5":
            return f"status {status}"
        if status[0] == "1":
            continue
        # A head may be passed on before its body proves false; what follows may not end it well.
        end = found if found.flags & frames.END_STREAM else caller.until(
            lambda each: each.stream == stream
            and (each.kind == Kind.RST_STREAM or bool(each.flags & frames.END_STREAM and each.kind in (0, 1))), 4,
        )  # fmt: skip
        return f"reset {Code(end.code).name}" if end.kind == Kind.RST_STREAM else "taken"


def check_recovery(caller: Talker, line: Line, web: Pod) -> None:
    """The caller's own connection is unharmed, and its next request is served."""
    assert caller.is_alive()
    stream = caller.request(b"/after")
    server, their_stream = serve(line)
    server.respond(their_stream, b"200", b"fine")
    assert caller.head(stream)[1][b":status"] == b"200"
    assert caller.body(stream) == b"fine"
    assert web.proxy.get("/ready").status == 200


@pytest.mark.parametrize(("code", "fault"), CONNECTION.values(), ids=CONNECTION)
def test_a_fault_of_the_connection_ends_it(way: tuple[Talker, Line], web: Pod, code: Code, fault: Fault) -> None:
    caller, line = way
    stream = caller.request(b"/x", method=b"POST")  # not tried again
    server, their_stream = serve(line)
    server.send(fault(their_stream))
    fate = server.fate(seconds=5)
    assert fate in (f"GOAWAY {code.name}", "closed"), fate
    assert outcome(caller, stream) != "taken"
    check_recovery(caller, line, web)


@pytest.mark.parametrize("fault", STREAM.values(), ids=STREAM)
def test_a_fault_of_a_stream_ends_at_least_that(way: tuple[Talker, Line], web: Pod, fault: Fault) -> None:
    caller, line = way
    stream = caller.request(b"/x", method=b"POST")  # not tried again
    server, their_stream = serve(line)
    server.send(fault(their_stream))
    assert outcome(caller, stream) != "taken"
    fate = server.fate(their_stream, seconds=5)
    assert fate.startswith(("RST_STREAM", "GOAWAY", "closed")), fate
    server.close()
    check_recovery(caller, line, web)


FIRST_WORDS: Final = {
    "3.4 no SETTINGS at first": frames.ping(),
    "3.4 not HTTP/2 at all": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    "3.4 nothing but zeros": bytes(64),
}


@pytest.mark.parametrize("words", FIRST_WORDS.values(), ids=FIRST_WORDS)
def test_a_server_that_begins_wrong_is_left(way: tuple[Talker, Line], web: Pod, words: bytes) -> None:
    caller, line = way
    stream = caller.request(b"/x", method=b"POST")
    server = Talker(line.accept().socket, is_client=False)
    server.send(words)
    assert outcome(caller, stream) != "taken"
    server.close()
    check_recovery(caller, line, web)


def test_data_beyond_the_window_ends_the_connection(line: Line, outsider: Pod, web: Pod) -> None:
    with Talker(outsider.connect((web.ip, line.port)), is_client=True).open((Setting.INITIAL_WINDOW_SIZE, 0)) as caller:
        caller.begun()
        stream = caller.request(b"/x", method=b"POST")  # not tried again
        server, their_stream = serve(line)
        server.send(headers(their_stream, OK, end=False), *[data(their_stream, bytes(16_000)) for _ in range(10)])
        assert server.fate(their_stream, seconds=5) in ("GOAWAY FLOW_CONTROL_ERROR", "RST_STREAM FLOW_CONTROL_ERROR")
        assert caller.fate(stream, seconds=5).startswith("RST_STREAM")
        caller.send(settings((Setting.INITIAL_WINDOW_SIZE, 65_535)))
        server.close()
        check_recovery(caller, line, web)


@pytest.mark.parametrize(
    "code", [code for code in Code if code not in (Code.NO_ERROR, Code.REFUSED_STREAM)], ids=lambda code: code.name
)
def test_a_reset_reaches_the_caller_with_its_code(way: tuple[Talker, Line], code: Code) -> None:
    caller, line = way
    stream = caller.request(b"/x", method=b"POST")
    server, their_stream = serve(line)
    server.send(frames.reset(their_stream, code))
    assert caller.fate(stream, 5) == f"RST_STREAM {code.name}"


GOOD: Final[dict[str, Fault]] = {
    "5.5 a frame of no known type": lambda s: frame(0xBE, 0xFF, s, b"what?"),
    "6.5.2 an unknown setting": lambda _: settings((0xBEEF, 1)),
    "5.3.2 PRIORITY": lambda s: frame(Kind.PRIORITY, 0, s, bytes(5)),
    "6.1 DATA with padding": lambda s: headers(s, OK, end=False) + frame(Kind.DATA, frames.PADDED, s, b"\x02\0\0"),
    "6.1 empty DATA": lambda s: headers(s, OK, end=False) + data(s) * 5,
    "6.2 HEADERS with padding and priority": lambda s: frame(
        Kind.HEADERS, frames.PADDED | frames.PRIORITY | frames.END_HEADERS, s, b"\x02" + bytes(5) + OK + bytes(2)
    ),
    "6.10 a section in pieces": lambda s: (
        headers(s, OK[:1], end=False, whole=False)
        + frames.continuation(s, OK[1:4], whole=False)
        + frames.continuation(s, OK[4:])
    ),
    "8.1 an informational response": lambda s: headers(
        s, literal([(b":status", b"103"), (b"link", b"</a>")]), end=False
    ),
    "4.1 a reserved bit": lambda s: frame(Kind.WINDOW_UPDATE, 0, s | 1 << 31, struct.pack(">I", 1)),
}


@pytest.mark.parametrize("prelude", GOOD.values(), ids=GOOD)
def test_what_is_unusual_but_right_is_taken(way: tuple[Talker, Line], prelude: Fault) -> None:
    caller, line = way
    stream = caller.request(b"/x", method=b"POST")  # not tried again
    server, their_stream = serve(line)
    begun = prelude(their_stream)
    server.send(begun)
    has_head = any(
        each.kind == Kind.HEADERS and b"103" not in each.payload for each in frames.split(begun)[0]
    )  # fmt: skip
    server.send(*([] if has_head else [headers(their_stream, OK, end=False)]), data(their_stream, b"fine", end=True))
    assert outcome(caller, stream) == "taken"
    assert server.is_alive()
