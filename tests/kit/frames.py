"""HTTP/2 frame by frame, for peers that keep no rule but those a test wants kept. Bytes by hand, HPACK by `hpack`."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import hpack

from tests.kit.lines import SECONDS

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[bytes, bytes]]


class Kind(IntEnum):
    """Frame types (RFC 9113 section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20


class Code(IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Settings (RFC 9113 section 6.5.2, RFC 8441)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        at = 4 if self.kind == Kind.GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4])


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` lies about the payload's."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def settings_ack() -> bytes:
    """An acknowledgement of settings."""
    return frame(Kind.SETTINGS, ACK)


def data(stream: int, content: bytes = b"", *, end: bool = False) -> bytes:
    """A DATA frame."""
    return frame(Kind.DATA, END_STREAM if end else 0, stream, content)


def headers(stream: int, block: bytes, *, end: bool = True, whole: bool = True) -> bytes:
    """A HEADERS frame with a header block that is encoded already."""
    return frame(Kind.HEADERS, (END_STREAM if end else 0) | (END_HEADERS if whole else 0), stream, block)


def continuation(stream: int, block: bytes, *, whole: bool = True) -> bytes:
    """A CONTINUATION frame."""
    return frame(Kind.CONTINUATION, END_HEADERS if whole else 0, stream, block)


def reset(stream: int, code: int = Code.CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4))


def window_update(stream: int, by: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, by.to_bytes(4))


def ping(content: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """A PING frame."""
    return frame(Kind.PING, ACK if ack else 0, 0, content)


def goaway(last: int, code: int = Code.NO_ERROR) -> bytes:
    """A GOAWAY frame."""
    return frame(Kind.GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4))


def literal(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that touches no table: every field literal, never indexed, no Huffman (RFC 7541 section 6.2.3)."""

    def text(value: bytes) -> bytes:
        if len(value) < 127:
            return bytes((len(value),)) + value
        out, rest = b"\x7f", len(value) - 127
        while rest >= 128:
            out += bytes((rest % 128 + 128,))
            rest //= 128
        return out + bytes((rest,)) + value

    return b"".join(b"\x10" + text(name) + text(value) for name, value in fields)


def request(
    path: bytes = b"/", method: bytes = b"GET", authority: bytes = b"web", *more: tuple[bytes, bytes]
) -> Fields:
    """The fields of a request."""
    pseudo = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", authority)]
    return [*pseudo, *more]


def split(held: bytes) -> tuple[list[Frame], bytes]:
    """Whole frames at the front of some bytes, and what is left."""
    found: list[Frame] = []
    while len(held) >= 9:
        size = int.from_bytes(held[:3])
        if len(held) < 9 + size:
            break
        stream = int.from_bytes(held[5:9]) & 0x7FFF_FFFF
        found.append(Frame(held[3], held[4], stream, held[9 : 9 + size]))
        held = held[9 + size :]
    return found, held


class Talker:
    """One end of an HTTP/2 connection. Reads frames and remembers them; answers only what its manners say.

    A talker with manners acknowledges SETTINGS and PING; it never opens a window of its own accord.
    """

    def __init__(self, connection: socket.socket, *, is_client: bool, manners: bool = True) -> None:
        self.socket = connection
        self.is_client = is_client
        self.manners = manners
        self.held = b""
        self.seen: list[Frame] = []
        self.is_over = False
        self.was_reset = False
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.next_stream = 1 if is_client else 2
        connection.settimeout(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def open(self, *pairs: tuple[int, int]) -> Self:
        """Say hello: the preface of a client, the settings of either."""
        self.send((PREFACE if self.is_client else b"") + settings(*pairs))
        return self

    def send(self, *frames: bytes) -> None:
        """Send; a peer that has gone already is found out by reading."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(frames))

    def request(self, path: bytes = b"/", *more: tuple[bytes, bytes], end: bool = True, method: bytes = b"GET") -> int:
        """Send a request's head; returns its stream."""
        stream = self.next_stream
        self.next_stream += 2
        fields = request(path, method, b"web", *more)
        self.send(headers(stream, self.encoder.encode(fields), end=end))
        return stream

    def respond(self, stream: int, status: bytes = b"200", content: bytes = b"ok", *more: tuple[bytes, bytes]) -> None:
        """Send a whole response."""
        block = self.encoder.encode([(b":status", status), *more])
        self.send(headers(stream, block, end=not content), *([data(stream, content, end=True)] if content else []))

    def read(self, seconds: float = SECONDS) -> Frame | None:
        """The next frame, or None at the connection's end; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            found, _ = split(self.held[: 9 + int.from_bytes(self.held[:3])]) if len(self.held) >= 9 else ([], b"")
            if found:
                self.held = self.held[9 + len(found[0].payload) :]
                self._take(found[0])
                return found[0]
            if self.is_over:
                return None
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                chunk = self.socket.recv(262_144)
            except ConnectionResetError:
                self.was_reset, chunk = True, b""
            finally:
                self.socket.settimeout(SECONDS)
            self.held += chunk
            self.is_over = not chunk

    def _take(self, found: Frame) -> None:
        self.seen.append(found)
        if self.manners and not found.flags & ACK:
            if found.kind == Kind.SETTINGS:
                self.send(settings_ack())
            elif found.kind == Kind.PING:
                self.send(ping(found.payload, ack=True))

    def until(self, is_it: Callable[[Frame], bool], seconds: float = SECONDS) -> Frame:
        """Read up to a frame; raises AssertionError at the connection's end, TimeoutError when it does not come."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.read(deadline - time.monotonic())
            if found is None:
                raise AssertionError(f"the connection ended; last frames: {self.seen[-5:]}")
            if is_it(found):
                return found

    def begun(self) -> Self:
        """Take the peer's hello: its preface, if it is a client, and its SETTINGS."""
        if not self.is_client:
            while len(self.held) < len(PREFACE):
                chunk = self.socket.recv(65536)
                assert chunk, "ended before the preface"
                self.held += chunk
            assert self.held.startswith(PREFACE), self.held[:40]
            self.held = self.held[len(PREFACE) :]
        self.until(lambda each: each.kind == Kind.SETTINGS)
        return self

    def head(self, stream: int | None = None, seconds: float = SECONDS) -> tuple[int, dict[bytes, bytes], bool]:
        """Read up to a header block: its stream, its fields, and whether the stream ends with it."""
        first = self.until(
            lambda each: each.kind == Kind.HEADERS and (stream is None or each.stream == stream), seconds
        )
        block = first.payload
        if first.flags & PADDED:
            block = block[1 : len(block) - block[0]]
        if first.flags & PRIORITY:
            block = block[5:]
        last = first
        while not last.flags & END_HEADERS:
            last = self.until(lambda each: each.kind == Kind.CONTINUATION, seconds)
            block += last.payload
        fields = {bytes(name): bytes(value) for name, value in self.decoder.decode(block, raw=True)}
        return first.stream, fields, bool(first.flags & END_STREAM)

    def body(self, stream: int, seconds: float = SECONDS) -> bytes:
        """Read the rest of a stream's data, giving back the window it took."""
        content = b""
        while True:
            found = self.until(lambda each: each.stream == stream and each.kind != Kind.WINDOW_UPDATE, seconds)
            if found.kind == Kind.RST_STREAM:
                raise AssertionError(f"stream {stream} was reset: {Code(found.code).name}")
            if found.kind == Kind.DATA:
                content += found.payload
                if found.payload:
                    self.send(window_update(0, len(found.payload)), window_update(stream, len(found.payload)))
            if found.flags & END_STREAM and found.kind in (Kind.DATA, Kind.HEADERS):
                return content

    def fate(self, stream: int = 0, seconds: float = SECONDS) -> str:
        """Read until the connection ends, or this stream does; how it ended, in words that tests compare.

        `GOAWAY <code>`, `RST_STREAM <code>`, `closed`, `answered`, or `nothing` when time is up. A GOAWAY without
        an error ends nothing by itself.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.read(deadline - time.monotonic())
            except TimeoutError:
                return "nothing"
            if found is None:
                return "closed"
            if found.kind == Kind.GOAWAY and found.code:
                return f"GOAWAY {_name(found.code)}"
            if stream and found.stream == stream:
                if found.kind == Kind.RST_STREAM:
                    return f"RST_STREAM {_name(found.code)}"
                if found.flags & END_STREAM and found.kind in (Kind.DATA, Kind.HEADERS):
                    return "answered"

    def is_alive(self, seconds: float = SECONDS) -> bool:
        """Whether a PING is answered."""
        mark = b"alive?" + self.next_stream.to_bytes(2)
        self.send(ping(mark))
        try:
            self.until(lambda each: each.kind == Kind.PING and each.flags == ACK and each.payload == mark, seconds)
        except (AssertionError, TimeoutError):
            return False
        return True


def _name(code: int) -> str:
    return Code(code).name if code in set(Code) else str(code)
