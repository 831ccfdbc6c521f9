"""HTTP/1 and detection: what must hold for any bytes. The judgement of other parsers is in tests/wire."""

from typing import Any, Final

from tests.fuzz.cuts import beginnings, each_way
from tests.wire.shim import load

_shim: Final[Any] = load()
Event = tuple[Any, ...]
CHUNKED_HEAD: Final = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
METHODS: Final = (b"GET", b"HEAD", b"CONNECT")


def request(data: bytes) -> None:
    """A client's bytes."""
    events = each_way(data, lambda pieces: _read(True, pieces))
    _holds(data, events)
    if events and events[0][0] == "head":
        assert _shim.sniff_http(data) == "http1", "the codec reads what detection takes for something else"


def response(data: bytes) -> None:
    """A server's bytes, as an answer to each kind of request."""
    for method in METHODS:
        _holds(data, each_way(data, lambda pieces, method=method: _read(False, pieces, method)), method)  # type: ignore[misc]


def chunks(data: bytes) -> None:
    """What follows a head that promises chunks."""
    request(CHUNKED_HEAD + data)


def detection(data: bytes) -> None:
    """The first bytes of a plaintext connection: a verdict is never taken back."""
    _is_final([_shim.sniff_http(beginning) for beginning in beginnings(data)])


def client_hello(data: bytes) -> None:
    """The first bytes of a connection that may be TLS."""
    seen = [_shim.sniff_tls(beginning) for beginning in beginnings(data)]
    _is_final(seen)
    verdict, name = seen[-1]
    assert verdict in ("undecided", "opaque", "tls")
    assert not name or verdict == "tls"
    assert len(name) <= len(data)


def _is_final(verdicts: list[Any]) -> None:
    decided = [each for each in verdicts if "undecided" not in (each, each[0])]
    assert all(each == decided[0] for each in decided), f"a verdict was taken back: {verdicts}"
    assert verdicts[len(verdicts) - len(decided) :] == decided, "a verdict was forgotten"


def _read(is_request: bool, pieces: list[bytes], method: bytes = b"GET") -> list[Event]:
    """The codec's events. Which of its faults a message is refused for may depend on what of it has come."""
    return [event[:1] if event[0] == "error" else event for event in _shim.read(is_request, pieces, True, method)]


def _holds(data: bytes, events: list[Event], method: bytes = b"") -> None:
    assert sum(map(_size, events)) <= len(data), "more came out than went in"
    for message in _messages(events):
        again = _shim.read(not method, [_printed(message, method)], True, method or b"GET")
        assert again == message, f"printed and read again it is {again}, was {message}"


def _size(event: Event) -> int:
    match event:
        case ("head", first, _, fields):
            return _size(("trailers", fields)) + sum(len(part) for part in first if isinstance(part, bytes))
        case ("trailers", fields):
            return sum(len(name) + len(value) for name, value in fields)
        case ("data", body):
            return len(body)
    return 0


def _messages(events: list[Event]) -> list[list[Event]]:
    """The events of each message that came whole."""
    found: list[list[Event]] = [[]]
    for event in events:
        found[-1].append(event)
        if event[0] == "end":
            found.append([])
    return found[:-1]


def _printed(message: list[Event], method: bytes) -> bytes:
    """A message as anybody would write it; `method` is what a response answers."""
    _, first, minor, fields = message[0]
    version = b"HTTP/1.%d" % minor
    line = b"%b %b %b" % (*first, version) if isinstance(first[0], bytes) else b"%b %d %b" % (version, *first)
    body = b"".join(event[1] for event in message if event[0] == "data")
    if any(name.lower() == b"transfer-encoding" for name, _ in fields) and (not method or _has_body(method, first[0])):
        trailers = [field for event in message if event[0] == "trailers" for field in event[1]]
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        body = chunk + b"0\r\n" + _lines(trailers) + b"\r\n"
    return line + b"\r\n" + _lines(fields) + b"\r\n" + body


def _has_body(method: bytes, status: int) -> bool:
    """RFC 9112 section 6.3: some responses end with their head, whatever it says."""
    return not (
        method == b"HEAD" or status < 200 or status in (204, 304) or (method == b"CONNECT" and status < 300)
    )  # fmt: skip


def _lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)
