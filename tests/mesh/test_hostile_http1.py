"""Callers that are slow, hostile or unlucky over HTTP/1: each attack with the five checks of `withstand`."""

import contextlib
import select
import socket
import time
from typing import Final

import pytest

from tests.kit.hostile import steady, withstand
from tests.kit.lines import Peer
from tests.kit.netns import ip
from tests.kit.siege import (
    CHUNKED,
    FOUNTAIN,
    HEAD,
    MANY,
    MUTE,
    PORT,
    Side,
    castle,
    drip,
    fate,
    fates,
    inbound,
    outbound,
    side,
)
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

__all__ = ["castle", "inbound", "outbound", "side"]

# Slowness


def test_slow_heads(side: Side) -> None:
    """Slowloris: a field now and then, for ever."""

    def attack(side: Side) -> str:
        peers = [side.open() for _ in range(MANY)]
        for peer in peers:
            peer.send(f"GET / {HEAD}")
        drip(peers, "X: 1\r\n")
        return fates(peers)

    side.attack(attack, "408", "request head timeout")


def test_slow_heads_after_a_good_request(side: Side) -> None:
    """The limit holds for every head of a connection, not for the first alone."""

    def attack(side: Side) -> str:
        peers = [side.open(PORT) for _ in range(MANY)]
        for peer in peers:
            peer.send(f"GET / {HEAD}\r\n")
            assert peer.answer().status == 200
            peer.send(f"GET / {HEAD}")
        drip(peers, "X: 1\r\n")
        return fates(peers)

    side.attack(attack, "408", "request head timeout")


@pytest.mark.parametrize("begun", ["Content-Length: 1000\r\n\r\nbegun", "Transfer-Encoding: chunked\r\n\r\n5\r\nbe"])
def test_bodies_that_rest(side: Side, begun: str) -> None:
    def attack(side: Side) -> str:
        peers = [side.open() for _ in range(MANY)]
        for peer in peers:
            peer.send(f"POST / {HEAD}{begun}")
        return fates(peers)

    side.attack(attack, "408", "request body timeout")


def test_a_body_that_moves_is_not_cut_however_slow(inbound: Side, castle: Pod) -> None:
    before = castle.proxy.metric("inbound_http_errors_total", error="request body timeout")
    with inbound.open() as peer:
        peer.send(f"POST / {HEAD}Content-Length: 1000\r\n\r\n")
        for _ in range(8):
            time.sleep(0.3)  # longer in all than a rest may be
            peer.send("x")
        assert peer.is_silent(0.1)
    assert castle.proxy.metric("inbound_http_errors_total", error="request body timeout") == before


@pytest.mark.parametrize("waiting", ["for an answer", "for leave to send", "between requests", "in a stream"])
def test_who_waits_for_the_application_is_not_cut(inbound: Side, castle: Pod, waiting: str) -> None:
    """Whoever owes nothing may take all the time there is; each of these outlasts both limits."""
    with contextlib.closing(castle.listen(8090)) as listener:
        listener.settimeout(10)
        peer = Peer(inbound.attacker.connect((castle.ip, 8090)))
        expect = "Expect: 100-continue\r\n" if waiting == "for leave to send" else ""
        body = "" if waiting == "for an answer" else "Content-Length: 4\r\n"
        peer.send(f"POST / {HEAD}{body}{expect}\r\n", "body" if waiting == "between requests" else "")
        app = Peer(listener.accept()[0])
        app.head()
        with peer, app:
            if waiting == "in a stream":
                app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                peer.head()
            elif waiting == "between requests":
                app.exactly(4)
                app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert peer.answer().status == 200
            assert peer.is_silent(1.5)
            if waiting == "for leave to send":
                app.send("HTTP/1.1 100 Continue\r\n\r\n")
                assert peer.head()[0].startswith("HTTP/1.1 100")
                peer.send("body")
                assert app.exactly(4) == b"body"
            elif waiting == "in a stream":
                peer.send("body")
                assert app.exactly(4) == b"body"
                app.send("5\r\nevent\r\n")
                assert peer.until(b"event") == b"5\r\nevent"
            if waiting == "between requests":
                peer.send(f"GET /again {HEAD}\r\n")
                assert app.head()[0].startswith("GET /again")


def test_readers_that_do_not_read(castle: Pod, inbound: Side) -> None:
    """What they are sent fills a window and a queue, and stays there until TCP gives up on them."""
    there = {"direction": "inbound", "peer": "src", "target_port": str(FOUNTAIN)}

    def attack(side: Side) -> str:
        peers = []
        for _ in range(MANY):
            peers.append(side.open(FOUNTAIN))
            peers[-1].send(f"GET / {HEAD}\r\n")
        until("each is known", lambda: castle.proxy.metric("tcp_open_total", **there) >= MANY, 10, 0.1)
        until("each is let go", lambda: castle.proxy.metric("tcp_open_connections", **there) == 0, 20, 0.1)
        return "cut" if all(fell(peer) for peer in peers) else "whole"

    # The allocator keeps what fifty full queues needed once; more attacks need no more.
    inbound.attack(attack, "cut", "peer timeout", "tcp", growth=32 << 20, kept=32 << 20)
    assert castle.proxy.metric("tcp_close_total", errno="ETIMEDOUT", **there) >= MANY


def fell(peer: Peer) -> bool:
    """Read what there is of a connection to its end; whether that was a reset, which TCP sends to who reads on."""
    try:
        while peer.socket.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    else:
        return False
    finally:
        peer.close()


def test_hosts_that_vanish(mesh: Mesh, castle: Pod, inbound: Side) -> None:
    """Connections that are half open, some with something to send and some without: the other host is gone."""
    lost = mesh.pod("lost", meshed=False)
    there = {"direction": "inbound", "peer": "src", "target_port": str(MUTE)}
    before = castle.proxy.metric("tcp_open_connections", **there)

    def attack(_: Side) -> str:
        peers = [Peer(lost.connect((castle.ip, MUTE))) for _ in range(MANY)]
        for peer in peers:
            peer.send(f"GET / {HEAD}\r\n")
        until("all are known", lambda: castle.proxy.metric("tcp_open_connections", **there) == before + MANY, 10)
        ip("-n", lost.namespace.name, "link", "set", "eth0", "down")
        until("all are let go", lambda: castle.proxy.metric("tcp_open_connections", **there) == before, 20)
        for peer in peers:
            peer.reset()
        return "gone"

    inbound.attack(attack, "gone", "peer timeout", "tcp")
    ended = [castle.proxy.metric("tcp_close_total", errno=name, **there) for name in ("ETIMEDOUT", "EHOSTUNREACH")]
    assert sum(ended) >= MANY, ended


# Requests that two readers could read differently

SMUGGLING: Final = {
    "CL.TE": ("400", f"POST / {HEAD}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "TE.CL": ("400", f"POST / {HEAD}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n"),
    "TE.TE": ("400", f"POST / {HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "TE, identity": ("501", f"POST / {HEAD}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    "xchunked": ("501", f"POST / {HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "quoted chunked": ("501", f'POST / {HEAD}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "TE with VT": ("400", f"POST / {HEAD}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "TE before its colon": ("400", f"POST / {HEAD}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "TE in 1.0": ("400", "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two lengths": ("400", f"POST / {HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    "a list of lengths": ("400", f"POST / {HEAD}Content-Length: 5, 5\r\n\r\nhello"),
    "+5": ("400", f"POST / {HEAD}Content-Length: +5\r\n\r\nhello"),
    "0x5": ("400", f"POST / {HEAD}Content-Length: 0x5\r\n\r\nhello"),
    "-0": ("400", f"POST / {HEAD}Content-Length: -0\r\n\r\n"),
    "2^64 + 5": ("400", f"POST / {HEAD}Content-Length: 18446744073709551621\r\n\r\nhello"),
    "chunk 0x5": ("400", f"{CHUNKED}0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk 0_5": ("400", f"{CHUNKED}0_5\r\nhello\r\n0\r\n\r\n"),
    "chunk +5": ("400", f"{CHUNKED}+5\r\nhello\r\n0\r\n\r\n"),
    "chunk ' 5'": ("400", f"{CHUNKED} 5\r\nhello\r\n0\r\n\r\n"),
    "chunk '5 '": ("400", f"{CHUNKED}5 \r\nhello\r\n0\r\n\r\n"),
    "chunk beyond 2^63": ("400", f"{CHUNKED}ffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
    "chunk with LF": ("400", f"{CHUNKED}5\nhello\r\n0\r\n\r\n"),
    "chunk data with LF": ("400", f"{CHUNKED}5\r\nhello\n0\r\n\r\n"),
    "an extension with LF": ("400", f"{CHUNKED}5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "a folded line": ("400", f"GET / {HEAD}X: 1\r\n Content-Length: 5\r\n\r\nhello"),
    "a space before the first field": ("400", "GET / HTTP/1.1\r\n Host: web\r\n\r\n"),
    "an empty name": ("400", f"GET / {HEAD}: 1\r\n\r\n"),
    "a name with a space": ("400", f"GET / {HEAD}X Y: 1\r\n\r\n"),
    "NUL": ("400", f"GET / {HEAD}X: a\0b\r\n\r\n"),
    "CR": ("400", f"GET / {HEAD}X: a\rb\r\n\r\n"),
    "two hosts": ("400", f"GET / {HEAD}Host: other\r\n\r\n"),
    "a host with a path": ("400", "GET / HTTP/1.1\r\nHost: web/x\r\n\r\n"),
}


def test_smuggling(side: Side) -> None:
    """Every entry is refused, its connection ends, and what follows it is not taken for a request."""

    def attack(side: Side) -> str:
        wrong = []
        for name, (status, text) in SMUGGLING.items():
            with side.open() as peer:
                peer.send(text, f"GET /smuggled {HEAD}\r\n")
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    data = peer.to_end()
                if data.count(b"HTTP/1.1 ") != 1 or not data.startswith(f"HTTP/1.1 {status} ".encode()):
                    wrong.append((name, status, data))
        assert not wrong
        return "refused"

    side.attack(attack, "refused", "malformed chunk size")


# Much of what is allowed a little


def endless(side: Side, start: str, piece: str, times: int) -> str:
    """Send until the other side says something, or the end of it."""
    peer = side.open()
    peer.send(start)
    block = piece * 100
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(times // 100):
            peer.send(block)
            if select.select([peer.socket], [], [], 0)[0]:
                break
        peer.send("\r\n")
    return fate(peer)


MUCH: Final = {
    "10,000 fields": ("431", "too many header fields", f"GET / {HEAD}", "X:\r\n", 10_000),
    "a head of 1 MB": ("431", "head too large", f"GET / {HEAD}X: ", "y" * 100, 10_000),
    "a target of 1 MB": ("431", "head too large", "GET /", "y" * 100, 10_000),
    "trailers of 1 MB": ("431", "trailers too large", f"{CHUNKED}0\r\nX: ", "y" * 100, 10_000),
    "an extension of 1 MB": ("400", "chunk-size line too long", f"{CHUNKED}5;a=", "b" * 100, 10_000),
    "extensions of 1 MB": ("400", "more chunk framing than data", CHUNKED, f"1;a={'b' * 900}\r\nx\r\n", 1_000),
    "leading zeros": ("400", "chunk size too large", CHUNKED, "0" * 10, 1_000),
}


@pytest.mark.parametrize("name", MUCH)
def test_too_much(side: Side, name: str) -> None:
    status, error, start, piece, times = MUCH[name]

    def attack(side: Side) -> str:
        return " and ".join(sorted({endless(side, start, piece, times) for _ in range(10)}))

    side.attack(attack, status, error)


def test_requests_on_and_on_without_reading_an_answer(side: Side) -> None:
    """A hundred thousand pipelined requests: no more of them are held than a bound."""

    def attack(side: Side) -> str:
        peer = side.open(PORT)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(1)
        requests = f"GET / {HEAD}\r\n" * 1000
        with contextlib.suppress(TimeoutError):
            for _ in range(100):
                peer.send(requests)
        peer.reset()
        return "held back"

    withstand(side.pod.proxy, steady(side.attacker, side.ports[PORT]), lambda: attack(side), ending={"held back"},
              cause=None)  # fmt: skip
