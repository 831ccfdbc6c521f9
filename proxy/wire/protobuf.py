"""The Protocol Buffers wire format, as much as our two small APIs need: pure. Which field means what is not known here.

The library would cost the sidecar 5 MB of its own memory for six messages. It is the oracle of the tests instead;
`proxy/api` stays the one definition of the messages.
"""

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
_FIXED_SIZES: Final = {FIXED64: 8, FIXED32: 4}
MAX_VARINT: Final = 10
"""Bytes of the longest varint: 64 bits, seven in each."""


class ProtobufError(ValueError):
    """Bytes that are no message."""


def varint(value: int) -> bytes:
    """An integer, a negative one as its 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(number: int, value: bytes) -> bytes:
    """One `bytes` or message field; nothing for an empty one, as in proto3."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value if value else b""


def text(number: int, value: str) -> bytes:
    """One `string` field."""
    return blob(number, value.encode())


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Field number, wire type and value of each field, in order; raises ProtobufError."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint_at(data, at)
        number, kind = key >> 3, key & 7
        if not number or number >= 1 << 29:
            raise ProtobufError(f"field number {number}")
        if kind == VARINT:
            value, at = _varint_at(data, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint_at(data, at)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise ProtobufError(f"wire type {kind}")
        if size > end - at:
            raise ProtobufError("the message is cut off")
        yield number, kind, data[at : at + size]
        at += size


def decoded_text(value: int | bytes) -> str:
    """The value of a `string` field; raises ProtobufError if it is not UTF-8."""
    if isinstance(value, int):
        raise ProtobufError("an integer where text belongs")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"text that is not UTF-8: {value!r}") from error


def signed(value: int) -> int:
    """An `int64` out of its varint."""
    return value - (1 << 64) if value >> 63 else value


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(MAX_VARINT):
        if at + index >= len(data):
            raise ProtobufError("the message is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & (1 << 64) - 1, at + index + 1
    raise ProtobufError("an integer of more than 64 bits")
