"""HTTP/2 conversations over a line: both ends are the `h2` library, frame by frame under the test's control."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Final, Self, TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded

from tests.kit.lines import SECONDS, Line, Peer
from tests.kit.topology import Pod

Fields = list[tuple[str, str]]
E = TypeVar("E", bound=Event)
GET: Final[Fields] = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "/")]
POST: Final[Fields] = [(":method", "POST"), *GET[1:]]
GRPC: Final[Fields] = [*POST, ("te", "trailers"), ("content-type", "application/grpc")]


class Talk:
    """One end. What came and was not asked for yet waits in `events`."""

    def __init__(self, peer: Peer, client: bool, *, credits: bool = True) -> None:
        self.peer = peer
        self.credits = credits
        self.connection = H2Connection(
            H2Configuration(client_side=client, header_encoding="utf-8", validate_inbound_headers=False)
        )
        self.events: list[Any] = []
        self.connection.initiate_connection()
        self.flush()

    def close(self) -> None:
        """Close the connection."""
        self.peer.close()

    def flush(self) -> None:
        """Send what the library wants sent."""
        data = self.connection.data_to_send()
        if data:
            self.peer.send(data)

    def listen(self, seconds: float) -> bool:
        """Take in what comes next; False when nothing does."""
        self.peer.socket.settimeout(seconds)
        try:
            data = self.peer.socket.recv(262_144)
        except TimeoutError:
            return False
        finally:
            self.peer.socket.settimeout(SECONDS)
        if not data:
            raise ConnectionError(f"the other side ended; waiting: {self.events}")
        for event in self.connection.receive_data(data):
            if isinstance(event, DataReceived) and self.credits and event.flow_controlled_length:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.events.append(event)
        self.flush()
        return True

    def expect(self, kind: type[E], stream: int | None = None, seconds: float = SECONDS) -> E:
        """The next event of a kind (on a stream); others stay."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            left = deadline - time.monotonic()
            if left <= 0 or not self.listen(left):
                raise AssertionError(f"no {kind.__name__} on {stream}; waiting: {self.events}")

    def quiet(self, kind: type[Event], seconds: float = 0.3) -> bool:
        """Whether no event of a kind comes for a while."""
        try:
            self.expect(kind, seconds=seconds)
        except AssertionError:
            return True
        return False

    def ask(self, fields: Fields = GET, *, end: bool = True, body: bytes = b"") -> int:
        """Open a stream; returns its number."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, fields, end_stream=end and not body)
        if body:
            self.connection.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def say(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """A piece of a body."""
        self.connection.send_data(stream, data, end_stream=end)
        self.flush()

    def fields(self, stream: int, fields: Iterable[tuple[str, str]], *, end: bool = False) -> None:
        """A header section: a response, an interim response or trailers."""
        self.connection.send_headers(stream, list(fields), end_stream=end)
        self.flush()

    def answer(self, stream: int, body: bytes = b"", status: int = 200) -> None:
        """A whole response."""
        self.fields(stream, [(":status", str(status))], end=not body)
        if body:
            self.say(stream, body, end=True)

    def reset(self, stream: int, code: int) -> None:
        """RST_STREAM."""
        self.connection.reset_stream(stream, code)
        self.flush()

    def body(self, stream: int, size: int) -> bytes:
        """So many bytes of a body."""
        data = b""
        while len(data) < size:
            data += self.expect(DataReceived, stream).data
        return data


class GRPCApp:
    """An application that answers every call with a code, trailers-only where that is a failure; counts them."""

    def __init__(self, pod: Pod, port: int, code: int = 0) -> None:
        self.code = code
        self.answered = 0
        self.listener = pod.listen(port)
        self.talks: list[Talk] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for talk in self.talks:
            talk.peer.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.talks.append(Talk(Peer(self.listener.accept()[0]), False))
                threading.Thread(target=self._serve, args=(self.talks[-1],), daemon=True).start()

    def _serve(self, talk: Talk) -> None:
        with contextlib.suppress(OSError):
            while True:
                talk.listen(SECONDS)
                for event in talk.events:
                    if isinstance(event, StreamEnded):
                        self._answer(talk, event.stream_id)
                talk.events.clear()

    def _answer(self, talk: Talk, stream: int) -> None:
        self.answered += 1
        status = ("grpc-status", str(self.code))
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if self.code:
            talk.fields(stream, [*head, status], end=True)
            return
        talk.fields(stream, head)
        talk.say(stream, b"\0\0\0\0\1x")
        talk.fields(stream, [status], end=True)


def call(line: Line) -> Talk:
    """The client's end."""
    return Talk(line.open(), True)


def serve(line: Line) -> Talk:
    """The application's end, when the proxy dials it."""
    return Talk(line.accept(), False)


def named(event: Any) -> dict[str, str]:
    """Its header fields by name; the last one wins."""
    return dict(event.headers)


def values(event: Any, name: str) -> list[str]:
    """Every value of one header field."""
    return [value for each, value in event.headers if each == name]
