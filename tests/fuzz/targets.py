"""The table of fuzz targets: every parser that meets bytes which are not ours, and what it must keep to.

A target is called with any bytes and returns; an exception other than those the parser declares, or a broken promise
(AssertionError), is a finding. Its inputs are the files of `tests/fuzz/corpus/<name>`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.fuzz import control, http1, http2
from tests.kit import frames

HTTP1: Final = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x80", b":", b",", b";", b"0\r\n\r\n", b"5\r\nhello\r\n",
    b"ffffffffffffffff",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0", b"Host: b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close, host\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"l5d-client-id: x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b" 204 ", b" 100 ",
)  # fmt: skip
FRAMES: Final = (
    frames.settings((1, 0)), frames.settings((4, 2**31 - 1)), frames.settings_ack(), frames.PREFACE,
    frames.data(1, b"body"), frames.data(1, end=True), frames.headers(1, b"\x82\x86\x84\x41\x01a"),
    frames.headers(3, b"\x83\x86\x84", whole=False), frames.continuation(3, b"\x41\x01a"),
    frames.headers(1, b"\x88", end=False), frames.reset(1), frames.reset(3, 7), frames.goaway(1),
    frames.window_update(0, 1), frames.window_update(1, 2**31 - 1), frames.ping(), frames.ping(ack=True),
    frames.frame(frames.Kind.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"),
    frames.frame(frames.Kind.PRIORITY, 0, 1, b"\0\0\0\0\1"), b"\0\0\0\1", b"\0\0\0\3", b"\0\0\0\0",
)  # fmt: skip
FIELDS: Final = (
    b"\x82\x86\x84\x41\x01a", b"\x88", b"\x40\x01a\x01b", b"\x10\x01a\x01b", b"\x0f\x00\x03foo", b"\xbe", b"\xbf",
    b"\x3f\xe1\x1f",
    b"\x20", b"\xff\xff\xff\xff\x07", b"\x7f\x80\x80\x00", b"\x82\x9d\x7f",
    b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
)  # fmt: skip
TLS: Final = (
    b"\x16\x03\x01", b"\x01\x00", b"\x00\x00\x00\x09\x00\x07\x00\x00\x04name", b"\x00\x2b\x00\x03\x02\x03\x04",
    b"\xff\xff", b"\x00",
)  # fmt: skip
VARINTS: Final = (
    b"\x08\x01", b"\x12\x00", b"\x0a\x02\x08\x01", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x22\x06\x0a\x01a\x12\x01b",
    b"\x2a\x0b\x0a\x0910.0.0.1:8", b"\x15abcd", b"\x11abcdefgh", b"\x80\x00", b"\x0b", b"\x0c",
)  # fmt: skip
NAMES: Final = (b".", b"..", b"-", b"\n", b"a", b"A", b"\x80", b"/", b".serviceaccount.identity.tulle.cluster.local")
LEAF: Final = (*NAMES, b"spiffe://", b"/ns/", b"/sa/", b"SPIFFE://", b":1", b"%2e", b"?", b"#", b"@", b"\0", b"x" * 300)
SETTINGS: Final = (
    b",", b"-", b":", b"[", b"]", b"/", b" ", b"%eth0", b"::1", b"fd00::/8", b"10.0.0.1", b"0.0.0.0/0", b"0", b"1-2",
    b"65535", b"65536", b"ms", b"s", b"d", b"9" * 400, b"auto", b"true", b'{"port": 1, "path": "/"}', b"[" * 2000,
    b'"', b"\xd9\xa3", b"\xc2\xb2", b"\xed\xa0\x80",
)  # fmt: skip
STATUS: Final = (b":status: 200\n", b"grpc-status: 0\n", b"grpc-message: %41\n", b"9" * 5000)


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    name: str
    check: Callable[[bytes], None]
    words: tuple[bytes, ...]
    """What its language is made of: a search that knows them gets further."""


TARGETS: Final = {
    target.name: target
    for target in (
        Target("http1-request", http1.request, HTTP1),
        Target("http1-response", http1.response, HTTP1),
        Target("http1-chunks", http1.chunks, HTTP1),
        Target("http2-server", http2.server, FRAMES),
        Target("http2-client", http2.client, FRAMES),
        Target("http2-header-block", http2.header_block, FIELDS),
        Target("detection", http1.detection, HTTP1),
        Target("client-hello", http1.client_hello, TLS),
        Target("alpn", control.alpn, (b"tulle/opaque/", b"tulle/http1", b"80", b"65536", b"\xb2", b"/")),
        Target("grpc-messages", control.grpc_messages, (b"\0\0\0\0\1a", b"\0\0\0\0\0", b"\1", b"\0\xff\xff\xff\xff")),
        Target("grpc-status", control.grpc_status, STATUS),
        Target("protobuf-fields", control.protobuf_fields, VARINTS),
        Target("destination-update", control.update, VARINTS),
        Target("identity-certificate", control.certificate, VARINTS),
        Target("identity-name", control.identity_name, NAMES),
        Target("leaf-names", control.leaf_names, LEAF),
        Target("setting", control.setting, SETTINGS),
    )
}  # fmt: skip
