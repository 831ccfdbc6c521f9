"""Other people's HTTP/1 readers, brought to one shape: a list of messages, or Rejected; our own codec beside them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import h11
import httptools

from tests.wire.shim import load

Fields = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Message:
    """One request or response."""

    first: tuple[object, ...]
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    is_whole: bool = False


class Rejected(Exception):
    """Not taken for HTTP; `messages` are those before the fault."""

    def __init__(self, why: str, messages: list[Message]) -> None:
        super().__init__(why)
        self.messages = messages


def _lower(fields: Any) -> Fields:
    """Names, and the one value that h11 changes, in lower case; llhttp leaves a tab at the end of a value."""
    plain = [(bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in fields]
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in plain]


_read: Final[Callable[..., list[tuple[Any, ...]]]] = load().read


def ours(is_request: bool, pieces: list[bytes], *, eof: bool = False, method: bytes = b"GET") -> list[Message]:
    """Our codec."""
    found: list[Message] = []
    for event in _read(is_request, pieces, eof, method):
        if event[0] == "head":
            found.append(Message((*event[1], event[2]), _lower(event[3])))
        elif event[0] == "data":
            found[-1].body += event[1]
        elif event[0] == "trailers":
            found[-1].trailers = _lower(event[1])
        elif event[0] == "end":
            found[-1].is_whole = True
        else:
            raise Rejected(f"{event[1]} {event[2]}", found)
    return found


def by_h11(is_request: bool, data: bytes, *, eof: bool = False, method: bytes = b"GET") -> list[Message]:
    """h11, one connection for each message."""
    found: list[Message] = []
    while data:
        connection = h11.Connection(h11.SERVER if is_request else h11.CLIENT, max_incomplete_event_size=1 << 20)
        if not is_request:
            connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
            connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        if eof:
            connection.receive_data(b"")
        message: Message | None = None
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise Rejected(str(error), found) from error
            if isinstance(event, h11.Request):
                message = Message((event.method, event.target, event.http_version[-1] - 48), _lower(event.headers))
                found.append(message)
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                message = Message((event.status_code, event.reason, event.http_version[-1] - 48), _lower(event.headers))
                found.append(message)
                if event.status_code < 200:
                    message.is_whole = True
            elif isinstance(event, h11.Data):
                assert message is not None
                message.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert message is not None
                message.is_whole = True
                message.trailers = _lower(event.headers)
                data = connection.trailing_data[0]
                break
            else:
                return found
    return found


class _Listener:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser: Any = None
        self.target = b""
        self.reason = b""
        self.in_body = False

    def seen(self) -> list[Message]:
        for message in self.messages:
            message.fields, message.trailers = _lower(message.fields), _lower(message.trailers)
        return self.messages

    def on_message_begin(self) -> None:
        self.target = self.reason = b""
        self.in_body = False
        self.messages.append(Message((), []))

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, status: bytes) -> None:
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        message = self.messages[-1]
        (message.trailers if self.in_body else message.fields).append((name, value))

    def on_headers_complete(self) -> None:
        self.in_body = True
        minor = int(self.parser.get_http_version()[-1])
        first = (
            (self.parser.get_method(), self.target, minor)
            if isinstance(self.parser, httptools.HttpRequestParser)
            else (self.parser.get_status_code(), self.reason, minor)
        )
        self.messages[-1].first = first

    def on_body(self, data: bytes) -> None:
        self.messages[-1].body += data

    def on_message_complete(self) -> None:
        self.messages[-1].is_whole = True


def by_llhttp(is_request: bool, data: bytes) -> list[Message]:
    """httptools, which is Node's llhttp. It stops at an upgrade or CONNECT, as the protocol changes there."""
    listener = _Listener()
    listener.parser = httptools.HttpRequestParser(listener) if is_request else httptools.HttpResponseParser(listener)
    try:
        listener.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise Rejected(str(error), [each for each in listener.seen() if each.is_whole]) from error
    return listener.seen()


def verdict(read: Callable[[], list[Message]]) -> tuple[list[Message], str]:
    """What was read, and why no more of it."""
    try:
        return read(), ""
    except Rejected as refusal:
        return refusal.messages, str(refusal)
