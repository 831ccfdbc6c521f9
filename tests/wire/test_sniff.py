"""Detection, on every beginning of what it must tell apart."""

import random
import ssl

import pytest

from tests.wire.shim import load

shim = load()


def client_hello(name: str | None, alpn: list[str] | None = None) -> bytes:
    """A ClientHello as OpenSSL makes it."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if alpn:
        context.set_alpn_protocols(alpn)
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("name", ["web.demo.serviceaccount.identity.tulle.cluster.local", "x", None])
def test_a_client_hello_is_read_once_it_is_whole(name: str | None) -> None:
    hello = client_hello(name, ["tulle/http1", "h2"])
    for cut in range(len(hello)):
        assert shim.sniff_tls(hello[:cut]) == ("undecided", b"")
    assert shim.sniff_tls(hello) == ("tls", (name or "").encode())
    assert shim.sniff_tls(hello + b"more") == ("tls", (name or "").encode())


def test_a_damaged_client_hello_is_never_read_out_of_bounds() -> None:
    hello = client_hello("web.example")
    random_ = random.Random(7)
    for _ in range(20_000):
        data = bytearray(hello)
        for _ in range(random_.randint(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        verdict, name = shim.sniff_tls(bytes(data[: random_.randint(1, len(data))]))
        assert verdict in ("tls", "opaque", "undecided")
        assert len(name) <= len(hello)


@pytest.mark.parametrize("data", [b"\x00", b"GET / HTTP/1.1", b"\x16\x02", b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"])
def test_what_is_no_tls_is_told_at_once(data: bytes) -> None:
    assert shim.sniff_tls(data) == ("opaque", b"")


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http1"),
        (b"\r\nGET / HTTP/1.1\r\n", "http1"),
        (b"WEIRD-METHOD /a HTTP/1.0\r\n", "http1"),
        (b"GET /a-long-target HTTP/1.", "http1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"PRIVATE / HTTP/1.1\r\n", "http1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "opaque"),
        (b"\x00\x01", "opaque"),
        (b"EHLO a.b\r\n", "opaque"),
        (b"HELO mail.example.com\r\n", "opaque"),
        (b"*1\r\n$4\r\nPING\r\n", "opaque"),
        (b"GET /a b HTTP/1.1\r\n", "opaque"),
    ],
)
def test_a_beginning_that_can_still_be_http_is_waited_for(data: bytes, verdict: str) -> None:
    seen = [shim.sniff_http(data[:cut]) for cut in range(len(data) + 1)]
    assert seen[-1] == verdict
    decided = seen.index(verdict)
    assert set(seen[:decided]) == {"undecided"}, "a verdict was taken back"


@pytest.mark.parametrize("line", [b"HELO somebody.example", b"GET /a-long-target-without-end", b"USER a-long-name"])
def test_what_could_be_a_request_line_is_waited_for_however_it_was_cut(line: bytes) -> None:
    assert {shim.sniff_http(line[:cut]) for cut in range(len(line) + 1)} == {"undecided"}


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"GET /" + b"a" * 9000, "http1"),
        (b"GET /" + b"a" * 8170 + b" HTTP/1", "undecided"),
        (b"GET /" + b"a" * 8180 + b" HTTP/1", "http1"),
        (b"\r\n" * 4096, "opaque"),
        (b"GET /" + b"a" * 8188 + b"\x00" * 9, "http1"),
    ],
)
def test_nothing_is_waited_for_without_end(data: bytes, verdict: str) -> None:
    assert shim.sniff_http(data) == verdict


def records(handshake: bytes, *sizes: int) -> bytes:
    """A handshake message in records of those sizes, the last size for the rest of it."""
    found, at = b"", 0
    while at < len(handshake):
        size, sizes = sizes[0], sizes[1:] or sizes
        part = handshake[at : at + size]
        found += b"\x16\x03\x01" + len(part).to_bytes(2) + part
        at += size
    return found


@pytest.mark.parametrize("sizes", [(1,), (3, 100), (4, 1, 200), (100,), (5, 16000)])
def test_a_client_hello_over_several_records_is_read_as_one(sizes: tuple[int, ...]) -> None:
    name = "web.demo.serviceaccount.identity.tulle.cluster.local"
    hello = records(client_hello(name)[5:], *sizes)
    for cut in range(len(hello)):
        assert shim.sniff_tls(hello[:cut]) == ("undecided", b"")
    assert shim.sniff_tls(hello) == ("tls", name.encode())
    assert shim.sniff_tls(hello + b"more") == ("tls", name.encode())


def test_records_that_make_no_client_hello_are_told() -> None:
    hello = client_hello("web.example")[5:]
    first = records(hello[:50], 50)
    assert shim.sniff_tls(first + b"\x17\x03\x03\x00\x01x") == ("tls", b"")
    assert shim.sniff_tls(first + b"\x16\x03\x03\x00\x00") == ("tls", b"")
    assert shim.sniff_tls(b"\x16\x03\x01\x00\x00") == ("opaque", b"")
    endless = records(b"\x01\xff\xff\xff" + bytes(20_000), 1000)
    assert shim.sniff_tls(endless) == ("tls", b"")


def test_damaged_records_are_never_read_out_of_bounds() -> None:
    hello = client_hello("web.example")[5:]
    random_ = random.Random(11)
    for _ in range(20_000):
        data = bytearray(records(hello, random_.randint(1, 60), random_.randint(1, 300)))
        for _ in range(random_.randint(0, 3)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        verdict, name = shim.sniff_tls(bytes(data[: random_.randint(1, len(data))]))
        assert verdict in ("tls", "opaque", "undecided")
        assert len(name) <= len(hello)
