"""gRPC's framing on top of HTTP/2: pure. Messages out of DATA, a status out of trailers; nothing of what they mean.

After the "gRPC over HTTP/2" protocol document. Compression is not offered, so a compressed message is the peer's fault.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_MESSAGE: Final = 4 << 20
"""gRPC's own default for a received message: bounds what a control plane, or one posing as it, makes us hold."""
PREFIX_LENGTH: Final = 5

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
ABORTED: Final = 10
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_NAMES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

_FROM_HTTP: Final = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: 12,
    429: 14,
    502: 14,
    503: 14,
    504: 14,
}
"""What an answer without `grpc-status` means ("HTTP to gRPC Status Code Mapping"): a proxy between answered, not the
server.
"""

Headers = Iterable[tuple[bytes, bytes]]


class Status(NamedTuple):
    """How a call ended."""

    code: int
    message: str = ""

    @property
    def name(self) -> str:
        """The code in words, as logs and metrics show it."""
        return _NAMES[self.code] if 0 <= self.code < len(_NAMES) else f"CODE_{self.code}"


class CallError(Exception):
    """A call that ended in any status but OK."""

    def __init__(self, status: Status) -> None:
        self.status = status
        super().__init__(f"{status.name}: {status.message}" if status.message else status.name)


class FramingError(ValueError):
    """The peer's bytes are not gRPC messages."""


def encode(message: bytes) -> bytes:
    """One message with its prefix: no compression, four bytes of length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Messages out of a stream of bytes that is cut anywhere."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes; raises FramingError for one that is compressed or too large."""
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        start = 0
        while len(buffer) - start >= PREFIX_LENGTH:
            if buffer[start]:
                raise FramingError("a compressed message, though no compression was offered")
            length = int.from_bytes(buffer[start + 1 : start + PREFIX_LENGTH], "big")
            if length > MAX_MESSAGE:
                raise FramingError(f"a message of {length} bytes; at most {MAX_MESSAGE} are taken")
            end = start + PREFIX_LENGTH + length
            if len(buffer) < end:
                break
            messages.append(bytes(buffer[start + PREFIX_LENGTH : end]))
            start = end
        del buffer[:start]
        return messages

    @property
    def is_between_messages(self) -> bool:
        """Whether a stream may end here."""
        return not self._buffer


def request_headers(path: str, authority: str, timeout: float | None = None) -> list[tuple[bytes, bytes]]:
    """The header section of a call, in the order that the protocol document asks for."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode("ascii")),
        (b":authority", authority.encode("ascii")),
        (b"te", b"trailers"),
    ]
    if timeout is not None:
        # At most eight digits are allowed; milliseconds reach 27 hours.
        headers.append((b"grpc-timeout", b"%dm" % min(max(1, round(timeout * 1000)), 99_999_999)))
    headers += [(b"content-type", b"application/grpc"), (b"user-agent", b"tulle-proxy")]
    return headers


def status_from_trailers(trailers: Headers) -> Status | None:
    """The status in a trailer section (or in a trailers-only response); None when it carries none."""
    code: int | None = None
    message = ""
    for name, value in trailers:
        if name == b"grpc-status":
            code = int(value) if value.isdigit() and len(value) < 10 else UNKNOWN
        elif name == b"grpc-message":
            message = _percent_decoded(value)
    return None if code is None else Status(code, message)


def status_from_headers(headers: Headers) -> Status | None:
    """What a response's first section already says: None while all is well so far, else why the call has failed."""
    fields = dict(headers)
    status = fields.get(b":status", b"")
    if status != b"200":
        http = int(status) if status.isdigit() and len(status) == 3 else 0
        found = status_from_trailers(fields.items())
        return found or Status(_FROM_HTTP.get(http, UNKNOWN), f"HTTP status {status.decode('ascii', 'replace')}")
    if not fields.get(b"content-type", b"").startswith(b"application/grpc"):
        return Status(UNKNOWN, "the answer is not gRPC")
    return None


def _percent_decoded(value: bytes) -> str:
    """`grpc-message` is percent-encoded UTF-8; what is malformed is shown as it came."""
    out = bytearray()
    at = 0
    while at < len(value):
        pair = value[at + 1 : at + 3]
        if value[at : at + 1] == b"%" and len(pair) == 2 and all(c in b"0123456789abcdefABCDEF" for c in pair):
            out.append(int(pair, 16))
            at += 3
        else:
            out.append(value[at])
            at += 1
    return out.decode("utf-8", "replace")
