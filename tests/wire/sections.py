"""Made-up HTTP/2 requests as frames, whole and damaged, and a plain reading of such frames. Pure; the dice are given.

The reading keeps to frames and HPACK alone; whether a section is well-formed is asked of `h2`'s own checks. It stops
where a connection error must follow, so what it found by then is the most that may be forwarded.
"""

import random
import struct
from dataclasses import dataclass, field
from typing import Final

import hpack
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers

from tests.kit import frames
from tests.kit.frames import Fields, Frame, Kind, Setting

METHODS: Final = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"PATCH", b"BREW")
PATHS: Final = (b"/", b"/a?b=c&d=%20", b"/x/../y", b"/~!$&'()+,;=:@", b"/" + b"p" * 300)
NAMES: Final = (b"x-a", b"accept", b"cookie", b"a.b_c~d", b"content-type", b"via", b"te-x", b"hosts", b"x-a")
VALUES: Final = (b"", b"1", b"a, b", b'"quo\\"ted"', b"a\tb", b"x" * 300, b"\xe9t\xe9", b"trailers", b"a=b; c=d")


@dataclass(slots=True)
class Request:
    """One request as it was read."""

    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    is_whole: bool = False
    is_reset: bool = False
    fault: str = ""
    """Why it may not be forwarded as whole."""


# Making


def section(random_: random.Random, encoder: hpack.Encoder, fields: Fields) -> bytes:
    """Encoded in one of the ways there are."""
    kind = random_.randrange(3)
    if kind == 0:
        return frames.literal(fields)
    return bytes(encoder.encode(fields, huffman=kind == 1))


def head_frames(random_: random.Random, stream: int, block: bytes, *, end: bool) -> bytes:
    """HEADERS, padded or with a priority now and then, and the rest in CONTINUATION."""
    cut = random_.randrange(len(block) + 1) if random_.random() < 0.2 else len(block)
    first, rest = block[:cut], block[cut:]
    flags = frames.END_STREAM if end else 0
    if random_.random() < 0.1:
        flags, first = flags | frames.PRIORITY, struct.pack(">IB", 0, 7) + first
    if random_.random() < 0.1:
        flags, first = flags | frames.PADDED, b"\x03" + first + bytes(3)
    if not rest:
        return frames.frame(Kind.HEADERS, flags | frames.END_HEADERS, stream, first)
    out = frames.frame(Kind.HEADERS, flags, stream, first)
    half = len(rest) // 2
    return out + frames.continuation(stream, rest[:half], whole=False) + frames.continuation(stream, rest[half:])


def request(random_: random.Random, encoder: hpack.Encoder, stream: int) -> list[bytes]:
    """A well-formed request in frames; the encoder's table goes along, so the order of heads is the order made."""
    method = random_.choice(METHODS)
    more = [(random_.choice(NAMES), random_.choice(VALUES)) for _ in range(random_.randrange(6))]
    # h2 joins the crumbs of a cookie before it checks them, and takes what an empty one leaves for a space at the end.
    more = [(name, value or b"c=1") if name == b"cookie" else (name, value) for name, value in more]
    body = random_.randbytes(random_.choice((0, 0, 1, 5, 200, 3000)))
    if random_.random() < 0.4:
        more.insert(random_.randint(0, len(more)), (b"content-length", b"%d" % len(body)))
    if random_.random() < 0.1:
        more.append((b"te", b"trailers"))
    if random_.random() < 0.1:
        more.append((b"host", b"a.example"))
    fields = frames.request(random_.choice(PATHS), method, b"a.example", *more)
    trailers = [(b"x-t", b"v")] * random_.choice((0, 0, 0, 1, 2))
    out = [head_frames(random_, stream, section(random_, encoder, fields), end=not body and not trailers)]
    while body:
        size = random_.randint(1, len(body))
        end = size == len(body) and not trailers
        if random_.random() < 0.1:
            flags = frames.PADDED | (frames.END_STREAM if end else 0)
            out.append(frames.frame(Kind.DATA, flags, stream, b"\x04" + body[:size] + bytes(4)))
        else:
            out.append(frames.data(stream, body[:size], end=end))
        body = body[size:]
    if trailers:
        # Literal, so that its place among the sections of other streams does not matter.
        out.append(head_frames(random_, stream, frames.literal(trailers), end=True))
    return out


def others(random_: random.Random) -> bytes:
    """A frame that is nobody's request."""
    return random_.choice((
        frames.ping(), frames.settings((Setting.HEADER_TABLE_SIZE, 4096)), frames.window_update(0, 1000),
        frames.frame(0xBE, 0xFF, 0, b"what?"), frames.frame(Kind.PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
    ))  # fmt: skip


def conversation(random_: random.Random) -> list[bytes]:
    """Some requests on streams of their own, their bodies mixed, as pieces that are whole frames."""
    encoder = hpack.Encoder()
    made = [request(random_, encoder, 2 * n + 1) for n in range(random_.choice((1, 1, 2, 4)))]
    out: list[bytes] = []
    begun = 0
    while any(made):
        ready = [parts for n, parts in enumerate(made) if parts and n < begun]
        if begun < len(made) and (not ready or random_.random() < 0.5):
            out.append(made[begun].pop(0))
            begun += 1
        else:
            out.append(random_.choice(ready).pop(0))
        if random_.random() < 0.1:
            out.append(others(random_))
    return out


# Damaging

INJECTED: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"X-Name", b"1"), (b"x name", b"1"), (b"x:name", b"1"), (b"", b"1"), (b"x\0", b"1"), (b"x\r\ny", b"1"),
    (b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x", b"a\0b"), (b"x", b" a"), (b"x", b"a\t"),
    (b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"keep-alive", b"1"), (b"upgrade", b"h2c"),
    (b"proxy-connection", b"close"), (b"te", b"gzip"), (b":path", b"/two"), (b":method", b"GET"), (b":status", b"200"),
    (b":thing", b"1"), (b"content-length", b"+1"), (b"content-length", b"99"), (b"content-length", b"1, 1"),
    (b"host", b"b.example"), (b":scheme", b"http"), (b":authority", b"b.example"),
)  # fmt: skip


def damage(random_: random.Random, pieces: list[bytes]) -> bytes:
    """A little of it wrong: in a frame's header, in its payload, in the order of frames, or in a section's fields."""
    pieces = list(pieces)
    for _ in range(random_.choice((1, 1, 1, 2))):
        at = random_.randrange(len(pieces))
        found = pieces[at]
        kind = random_.randrange(9)
        if kind == 0:
            pieces.insert(random_.randrange(len(pieces) + 1), found)
        elif kind == 1 and len(pieces) > 1:
            pieces.pop(at)
        elif kind == 2:
            where = random_.randrange(9)
            pieces[at] = found[:where] + bytes((random_.choice((0, 1, 2, 3, 5, 255, random_.randrange(256))),)) + (
                found[where + 1 :]
            )  # fmt: skip
        elif kind == 3 and len(found) > 9:
            where = random_.randrange(9, len(found))
            pieces[at] = found[:where] + bytes((random_.randrange(256),)) + found[where + 1 :]
        elif kind == 4:
            pieces[at] = found[: random_.randrange(len(found))]
        elif kind == 5:
            other = random_.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 6:
            stream = random_.choice((0, 1, 2, 3, 5, 7, 99))
            pieces.insert(at, random_.choice((
                frames.data(stream, b"stray", end=random_.random() < 0.5), frames.reset(stream),
                frames.window_update(stream, random_.choice((0, 1, 0x7FFF_FFFF))), frames.continuation(stream, b""),
                frames.frame(Kind.PUSH_PROMISE, 4, stream, bytes(4)), frames.frame(Kind.PING, 0, stream, bytes(7)),
            )))  # fmt: skip
        else:
            stream = random_.choice((99, 101, 103))
            fields = frames.request(b"/injected", b"POST", b"a.example")
            fields.insert(random_.choice((0, 3, 4, 4, 4, len(fields))), random_.choice(INJECTED))
            pieces.append(headers_and_body(random_, stream, fields))
    return b"".join(pieces)


def headers_and_body(random_: random.Random, stream: int, fields: Fields) -> bytes:
    """A request of exactly these fields, with one byte of a body or none."""
    block = frames.literal(fields)
    if random_.random() < 0.5:
        return frames.headers(stream, block)
    return frames.headers(stream, block, end=False) + frames.data(stream, b"1", end=True)


# Reading

TRAILERS: Final = HeaderValidationFlags(
    is_client=False, is_trailer=True, is_response_header=False, is_push_promise=False
)
HEAD: Final = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
MAX_FRAME: Final = 16_384


def read(data: bytes) -> dict[int, Request]:
    """The requests in a client's frames, by stream."""
    found: dict[int, Request] = {}
    decoder = hpack.Decoder()
    decoder.max_header_list_size = 1 << 20
    held: list[Frame] = []
    for each in frames.split(data)[0]:
        if held and (each.kind != Kind.CONTINUATION or each.stream != held[0].stream):
            break
        if len(each.payload) > MAX_FRAME:
            break
        if each.kind in (Kind.HEADERS, Kind.CONTINUATION):
            if each.kind == Kind.CONTINUATION and not held:
                break
            held.append(each)
            if not each.flags & frames.END_HEADERS:
                continue
            block, held = held, []
            try:
                fields = [(bytes(n), bytes(v)) for n, v in decoder.decode(_block(block), raw=True)]
            except (hpack.HPACKError, _BadPaddingError):
                break
            _section(found, block[0].stream, fields, bool(block[0].flags & frames.END_STREAM))
        elif each.kind == Kind.DATA and each.stream in found:
            request = found[each.stream]
            if request.is_whole or request.is_reset:
                continue
            try:
                request.body += _unpadded(each)
            except _BadPaddingError:
                break
            if each.flags & frames.END_STREAM:
                _end(request)
        elif each.kind == Kind.RST_STREAM and each.stream in found:
            found[each.stream].is_reset = True
    return found


class _BadPaddingError(Exception):
    """More padding than payload."""


def _unpadded(each: Frame) -> bytes:
    if not each.flags & frames.PADDED:
        return each.payload
    if not each.payload or each.payload[0] >= len(each.payload):
        raise _BadPaddingError
    return each.payload[1 : len(each.payload) - each.payload[0]]


def _block(held: list[Frame]) -> bytes:
    first = _unpadded(held[0])
    if held[0].flags & frames.PRIORITY:
        if len(first) < 5:
            raise _BadPaddingError
        first = first[5:]
    return first + b"".join(each.payload for each in held[1:])


def _section(found: dict[int, Request], stream: int, fields: Fields, end: bool) -> None:
    request = found.get(stream)
    if request is None:
        found[stream] = request = Request(fields, fault=fault_of(fields, HEAD))
    elif request.is_whole or request.is_reset:
        return
    else:
        request.trailers = fields
        request.fault = request.fault or fault_of(fields, TRAILERS) or ("" if end else "trailers that do not end")
    if end:
        _end(request)


def _end(request: Request) -> None:
    request.is_whole = True
    for name, value in request.fields:
        if name == b"content-length" and (not value.isdigit() or int(value) != len(request.body)):
            request.fault = request.fault or f"content-length {value!r} for {len(request.body)} bytes"


def fault_of(fields: Fields, flags: HeaderValidationFlags) -> str:
    """What `h2` has against a section."""
    try:
        list(validate_headers(fields, flags))
    except ProtocolError as error:
        return str(error) or repr(error)
    return ""
