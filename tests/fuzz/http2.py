"""HTTP/2: what must hold for any frames, as server and as client, and for any header block."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import hpack

from proxy.wire import http2_events
from proxy.wire.http2 import HTTP2Error
from tests.fuzz.cuts import cut, each_way
from tests.kit import frames
from tests.wire.shim import load_http2

_shim: Final[Any] = load_http2()
T = TypeVar("T")
Event = tuple[Any, ...]
REQUEST: Final = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"a")]
BODY: Final = b"body" * 1000
REQUESTS: Final = 3
GREETING: Final = frames.PREFACE + frames.settings()
OF_ITS_OWN: Final = 512
"""Bytes that a session may send without being asked: its settings, its window, its farewell."""
ECHO: Final = 2
"""Bytes that a byte may cost in answers: a frame of nine can provoke a reset, which has thirteen."""
MAX_CONTINUATIONS: Final = 8
"""libnghttp2 counts the pieces in which a CONTINUATION's header arrives: with more, its verdict depends on the cut."""
NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def server(data: bytes) -> None:
    """A client's bytes, the preface included."""
    _holds(data, _each_way(data, lambda pieces: _served(pieces)[0]))
    assert _served(cut(data), answers=True)[1] <= OF_ITS_OWN + ECHO * len(data), "answers are larger than questions"


def client(data: bytes) -> None:
    """A server's bytes; three requests wait for their answers."""
    _is_in_order(_each_way(data, _asked))
    session = waiting()
    sent = 0
    for piece in cut(data):
        _fed(session, [piece])
        sent += 0 if session.failed else len(session.data_to_send())
    assert sent <= OF_ITS_OWN + ECHO * len(data) + REQUESTS * len(BODY), "answers are larger than questions"


def header_block(data: bytes) -> None:
    """One header block, in as many CONTINUATION frames as the cut has it; what we take, `hpack` reads alike."""
    first, *more = cut(data) or [b""]
    wire = GREETING + frames.headers(1, first, whole=not more)
    for number, piece in enumerate(more, 1):
        wire += frames.continuation(1, piece, whole=number == len(more))
    events, _ = _served([wire])
    _holds(wire, events)
    for fields in [event[2] for event in events if event[0] == "section" and not event[3]]:
        theirs = [tuple(field) for field in hpack.Decoder(max_header_list_size=1 << 20).decode(data, raw=True)]
        assert fields == theirs, "hpack reads another section"
        again, _ = _served([GREETING + frames.headers(1, frames.literal(fields))])
        assert [event[2] for event in again if event[0] == "section"] == [fields], "printed and read again it differs"


def waiting() -> http2_events.ClientSession:
    """A session that has asked, and sent what it may."""
    session = http2_events.ClientSession()
    for number in range(REQUESTS):
        session.request(REQUEST, BODY, end_stream=number > 0)
    session.data_to_send()
    return session


def _each_way(data: bytes, read: Callable[[list[bytes]], T]) -> T:
    found, _ = frames.split(data.removeprefix(frames.PREFACE))
    if sum(frame.kind == frames.Kind.CONTINUATION for frame in found) > MAX_CONTINUATIONS:
        return read([data])
    return each_way(data, read)


def _served(pieces: list[bytes], *, answers: bool = False) -> tuple[list[Event], int]:
    """The events of a server's session, the last of them `failed` if it had enough, and how much it answered."""
    session = _shim.Recorder()
    events: list[Event] = []
    answered = 0
    try:
        for piece in pieces:
            session.read(piece)
            answered += len(session.written()) if answers else 0
    except HTTP2Error:
        assert session.failed
        events = [("failed",)]
    return session.take_events() + events, answered


def _asked(pieces: list[bytes]) -> list[Event]:
    """The events of the session that waits, as values; pieces of a body that follow each other are one."""
    session = waiting()
    found: list[Event] = []
    for event in _fed(session, pieces):
        last = found[-1] if found else ()
        if not isinstance(event, http2_events.Data):
            found.append((type(event).__name__, event.stream_id, repr(event)))
        elif last[:2] == ("Data", event.stream_id):
            found[-1] = (*last[:2], last[2] + event.data)
        else:
            found.append(("Data", event.stream_id, event.data))
    return [*found, ("failed", 0)] if session.failed else found


def _fed(session: http2_events.ClientSession, pieces: list[bytes]) -> list[http2_events.Event]:
    found: list[http2_events.Event] = []
    try:
        for piece in pieces:
            found += session.receive_data(piece)
    except HTTP2Error:
        assert session.failed
    return found + session.take_events()


def _holds(data: bytes, events: list[Event]) -> None:
    """What a server's side hands on is in order, is what may be handed on, and is no more than came."""
    _is_in_order(events)
    assert sum(len(event[2]) for event in events if event[0] == "data") <= len(data), "more came out than went in"
    begun: set[int] = set()
    for _, stream, fields, is_too_large, _ in [event for event in events if event[0] == "section"]:
        assert len(fields) <= http2_events.MAX_HEADERS
        assert sum(len(name) + len(value) + 32 for name, value in fields) <= http2_events.MAX_HEADER_BYTES
        for name, value in fields:
            assert NAME.fullmatch(name), f"the name {name!r} was let through"
            assert not FORBIDDEN.search(value), f"the value {value!r} was let through"
        methods = [name for name, _ in fields].count(b":method")
        assert methods == (stream not in begun) or is_too_large, "a request without a method, or trailers with one"
        begun.add(stream)


def _is_in_order(events: list[Event]) -> None:
    """Nothing is heard of a stream after its end."""
    over: set[int] = set()
    for kind, stream, *_ in [event for event in events if len(event) > 1 and event[0] not in ("going away", "pinged")]:
        assert stream not in over or stream == 0, f"stream {stream} is heard of after its end: {events}"
        if kind in ("closed", "StreamClosed"):
            over.add(stream)
