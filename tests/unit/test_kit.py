"""The test kit itself, where a fault in it would let a test pass: frames, hellos, counts, waits, peers."""

import socket
import ssl
import struct
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.kit.apps import since
from tests.kit.capture import is_client_hello, negotiated_tls13, parse
from tests.kit.cluster import total
from tests.kit.peers import Authority, ask
from tests.kit.waiting import GaveUpError, until, while_true


def frame(payload: bytes, protocol: int = 6, ethertype: bytes = b"\x08\x00") -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 1234, 8080, 77, 0, 5 << 4, 24, 0, 0, 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, protocol, 0)
    addresses = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2")
    return b"\0" * 12 + ethertype + head + addresses + tcp


def test_a_frame_gives_its_flow_sequence_and_payload() -> None:
    assert parse(frame(b"hello") + b"ethernet padding") == (("10.0.0.1", 1234, "10.0.0.2", 8080), 77, b"hello")


def test_frames_that_are_not_tcp_over_ipv4_are_nothing() -> None:
    assert parse(frame(b"x" * 20, protocol=17)) is None
    assert parse(frame(b"x" * 20, ethertype=b"\x86\xdd")) is None
    assert parse(b"short") is None


def both_sides_of_a_handshake(version: ssl.TLSVersion) -> tuple[bytes, bytes]:
    """The first flights of a real handshake in memory."""
    leaf = Authority.new("ca").leaf("a.test")
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c").write_bytes(leaf.chain)
        Path(folder, "k").write_bytes(leaf.key)
        server_context.load_cert_chain(Path(folder, "c"), Path(folder, "k"))
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client_context.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = to_server.read()
    incoming = ssl.MemoryBIO()
    incoming.write(hello)
    server = server_context.wrap_bio(incoming, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    return hello, to_client.read()


def test_the_negotiated_version_is_read_from_a_real_handshake() -> None:
    hello, flight = both_sides_of_a_handshake(ssl.TLSVersion.TLSv1_3)
    assert is_client_hello(hello)
    assert negotiated_tls13(flight)
    hello, flight = both_sides_of_a_handshake(ssl.TLSVersion.TLSv1_2)
    assert is_client_hello(hello)
    assert not negotiated_tls13(flight)
    assert not is_client_hello(b"GET / HTTP/1.1\r\n")
    assert not negotiated_tls13(b"HTTP/1.1 200 OK\r\n")


def test_counts_between_two_moments() -> None:
    zero = {"sent": 0, "ok": 0, "failed": 0, "late": 0, "new_connections": 0, "causes": {}, "answers": {}}
    before = {**zero, "sent": 5, "ok": 4, "causes": {"x": 1}, "answers": {"a": 4}}
    after = {**zero, "sent": 9, "ok": 7, "failed": 1, "causes": {"x": 1, "y": 1}, "answers": {"a": 4, "b": 3}}
    assert since(before, after) == {
        "sent": 4, "ok": 3, "failed": 1, "late": 0, "new_connections": 0, "causes": {"y": 1}, "answers": {"b": 3},
    }  # fmt: skip


def test_waits_give_up_and_say_what_they_waited_for() -> None:
    seen = iter([None, "", "there"])
    assert until("it", lambda: next(seen), 5, 0) == "there"
    with pytest.raises(GaveUpError, match="the moon"):
        until("the moon", lambda: None, 0.01, 0)
    with pytest.raises(AssertionError, match="no longer"):
        while_true("no longer", lambda: False, 1)


def test_samples_are_summed_by_label() -> None:
    samples = [({"a": "1", "b": "x"}, 2.0), ({"a": "1", "b": "y"}, 3.0), ({"a": "2"}, 9.0)]
    assert total(samples, a="1") == 5.0
    assert total(samples) == 14.0


def serve_once(authority: Authority) -> int:
    """A server that demands a certificate of this authority, for one connection; its port."""
    leaf = authority.leaf("server.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.certificate.decode())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c").write_bytes(leaf.chain)
        Path(folder, "k").write_bytes(leaf.key)
        context.load_cert_chain(Path(folder, "c"), Path(folder, "k"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as plain:
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.sendall(b"welcome " + connection.recv(100))
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_peers_are_taken_or_refused_by_their_certificates() -> None:
    ours, theirs = Authority.new("ours"), Authority.new("theirs")

    def asked(leaf: object) -> bytes:
        return ask(("127.0.0.1", serve_once(ours)), "server.test", leaf, b"me").data  # type: ignore[arg-type]

    assert asked(ours.leaf("client.test")) == b"welcome me"
    assert asked(None) == b""
    assert asked(theirs.leaf("client.test")) == b""
    assert asked(ours.leaf("client.test", timedelta(minutes=-1), timedelta(hours=1))) == b""
