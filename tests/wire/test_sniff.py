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
        (b"GET /a-long-target-without-end", "http1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"PRIVATE / HTTP/1.1\r\n", "http1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "opaque"),
        (b"\x00\x01", "opaque"),
        (b"EHLO a.b\r\n", "opaque"),
        (b"*1\r\n$4\r\nPING\r\n", "opaque"),
        (b"GET /a b HTTP/1.1\r\n", "opaque"),
    ],
)
def test_a_beginning_that_can_still_be_http_is_waited_for(data: bytes, verdict: str) -> None:
    seen = [shim.sniff_http(data[:cut]) for cut in range(len(data) + 1)]
    assert seen[-1] == verdict
    decided = seen.index(verdict)
    assert set(seen[:decided]) == {"undecided"}, "a verdict was taken back"
