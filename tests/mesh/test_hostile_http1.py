"""Peers that are slow, hostile or unlucky over HTTP/1, TCP and TLS: each attack with the five checks of `withstand`."""

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.kit.hostile import Cause, Course, descriptors, steady, withstand
from tests.kit.lines import App, Peer
from tests.kit.netns import ip
from tests.kit.sidecar import as_proxy_user
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

PORT: Final = 8080
"""Where the pod under attack answers."""
MUTE: Final = 8081
"""Where it takes connections and requests, and says nothing."""
FOUNTAIN: Final = 8082
"""Where it sends without end."""
SHORT: Final = {
    "REQUEST_HEAD_TIMEOUT": "1s", "REQUEST_BODY_TIMEOUT": "1s", "PEER_TIMEOUT": "3s", "INBOUND_DETECT_TIMEOUT": "2s",
}  # fmt: skip
"""The limits under test, short enough to wait for."""
MANY: Final = 50
HEAD: Final = "HTTP/1.1\r\nHost: web\r\n"
CHUNKED: Final = f"POST / {HEAD}Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Side:
    """From where a proxy is attacked: by callers of its pod, or by the pod's own application."""

    name: str
    pod: Pod
    """Whose proxy it is."""
    attacker: Pod
    host: str
    ports: dict[int, tuple[str, int]]

    def open(self, port: int = MUTE) -> Peer:
        """One connection of the attacker's."""
        return Peer(self.attacker.connect(self.ports[port]))

    def cause(self, error: str, kind: str = "http") -> Cause:
        """Where the proxy under attack names what it ended."""
        return Cause.of(f"{self.name}_{kind}_errors_total", words=error, error=error)

    def attack(
        self, attack: Callable[["Side"], str], ending: str, error: str, kind: str = "http", **more: Any
    ) -> Course:
        """The attack beside a good caller, with all five checks."""
        course = withstand(
            self.pod.proxy, steady(self.attacker, self.ports[PORT]), lambda: attack(self), ending={ending},
            cause=self.cause(error, kind), **more,
        )  # fmt: skip
        print(f"{self.name}: {course}")
        return course


def fountain(listener: socket.socket) -> None:
    """An application whose answers have no end."""
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"

    def pour(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(piece)

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=pour, args=(listener.accept()[0],), daemon=True).start()


@pytest.fixture(scope="module")
def castle(mesh: Mesh) -> Iterator[Pod]:
    """A pod with short limits, whose applications are the test's."""
    pod = mesh.pod("castle", settings=SHORT)
    with contextlib.closing(pod.listen(MUTE)), pod.listen(FOUNTAIN) as pouring, App(pod, PORT):
        thread = threading.Thread(target=fountain, args=(pouring,), daemon=True)
        thread.start()
        yield pod
        pouring.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture(scope="module")
def inbound(castle: Pod, outsider: Pod) -> Side:
    """Attacks from outside the mesh."""
    return Side("inbound", castle, outsider, castle.ip, {port: (castle.ip, port) for port in (PORT, MUTE, FOUNTAIN)})


@pytest.fixture(scope="module")
def outbound(mesh: Mesh, castle: Pod, web: Pod) -> Iterator[Side]:
    """Attacks by the application whose sidecar it is."""
    with contextlib.closing(web.listen(MUTE)), App(web, PORT):
        ports = {port: mesh.service(f"hostile-{port}", 80, [web], target=port) for port in (PORT, MUTE)}
        yield Side("outbound", castle, castle, web.ip, ports)


@pytest.fixture(params=["inbound", "outbound"])
def side(request: pytest.FixtureRequest) -> Side:
    """Both ways into a proxy."""
    found: Side = request.getfixturevalue(request.param)
    return found


def fate(peer: Peer) -> str:
    """How a connection ended: the status that it was answered with last, or that there was none."""
    how = "closed"
    try:
        data = peer.to_end()
    except ConnectionResetError:
        data, how = peer.held, "reset"
    except TimeoutError:
        return "open"
    finally:
        peer.close()
    statuses = [line.split()[1] for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    return statuses[-1].decode() if statuses else how


def fates(peers: list[Peer]) -> str:
    """Of all of them."""
    return " and ".join(sorted({fate(peer) for peer in peers}))


def drip(peers: list[Peer], piece: str, pause: float = 0.05, seconds: float = 8) -> None:
    """Send a little on each connection, again and again, until it is answered."""
    waiting = {peer.socket: peer for peer in peers}
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for ended in select.select(list(waiting), [], [], pause)[0]:
            del waiting[ended]
        for peer in waiting.values():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                peer.send(piece)


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
    good = steady(inbound.attacker, inbound.ports[PORT])
    withstand(castle.proxy, good, lambda: attack(inbound), ending={"cut"}, cause=None, growth=32 << 20, kept=32 << 20)


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


# TLS


def client_hello(castle: Pod) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client's side of TLS that has said its first words."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = context.wrap_bio(incoming, outgoing, server_hostname=castle.identity)
    with contextlib.suppress(ssl.SSLWantReadError):
        talk.do_handshake()
    return talk, incoming, outgoing


@pytest.mark.parametrize("cut", ["segments", "records", "both"])
def test_a_hello_in_pieces_of_one_byte(castle: Pod, inbound: Side, cut: str) -> None:
    """It is understood as if it had come whole: TLS stands, and then the certificate is missing."""

    def attack(side: Side) -> str:
        talk, incoming, outgoing = client_hello(castle)
        hello = outgoing.read()
        if cut != "segments":
            hello = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(5, len(hello)))
        with side.open(PORT) as peer:
            peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(hello), 1 if cut != "records" else len(hello)):
                peer.send(hello[at : at + 1] if cut != "records" else hello)
            with contextlib.suppress(ssl.SSLWantReadError):
                incoming.write(peer.socket.recv(65536))
                talk.do_handshake()
            peer.send(outgoing.read())
            return "stands" if talk.version() == "TLSv1.3" else fate(peer)

    inbound.attack(attack, "stands", "certificate_missing", "tcp")


def test_hellos_that_never_end(inbound: Side) -> None:
    """A byte of a handshake at a time: the time to tell what a connection is does not begin anew with each."""

    def attack(side: Side) -> str:
        peers = [side.open(PORT) for _ in range(MANY)]
        for peer in peers:
            peer.send(b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03")
        drip(peers, "\0")
        # A reset that met a byte on its way was told to whoever sent that byte, and shows as an end to the reader.
        return "ended" if {fate(peer) for peer in peers} <= {"reset", "closed"} else "not ended"

    inbound.attack(attack, "ended", "tls detection timeout", "tcp")


def test_handshakes_that_never_end(castle: Pod, inbound: Side) -> None:
    """A good hello, and then nothing."""

    def attack(side: Side) -> str:
        peers = []
        for _ in range(MANY):
            peers.append(side.open(PORT))
            peers[-1].send(client_hello(castle)[2].read())
        for peer in peers:
            peer.socket.recv(65536)
        return fates(peers)

    inbound.attack(attack, "reset", "tls handshake timeout", "tcp")


def test_a_thousand_connections_of_one_byte(inbound: Side) -> None:
    def attack(side: Side) -> str:
        peers = [side.open(PORT) for _ in range(1000)]
        for peer in peers:
            peer.send(b"\x16")
        return fates(peers)

    inbound.attack(attack, "reset", "tls detection timeout", "tcp")


# Descriptors


def ceiling(pid: int, limit: int) -> None:
    """Set how many descriptors a running process may have: as its own user, which needs no right for that."""
    subprocess.run([*as_proxy_user(), "prlimit", "--pid", str(pid), f"--nofile={limit}:"], check=True, timeout=10)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_descriptors_that_run_out_and_come_back(side: Side) -> None:
    """Who dials meanwhile waits, is not refused, and is served when there are descriptors again; nothing spins."""
    pid = side.pod.proxy.pid
    spent: list[float] = []

    def attack(side: Side) -> str:
        limit = int(side.pod.proxy.metric("process_max_fds"))
        peers = []
        try:
            ceiling(pid, descriptors(side.pod.proxy))
            peers = [side.open(PORT) for _ in range(MANY)]
            for peer in peers:
                peer.send(f"GET / {HEAD}Connection: close\r\n\r\n")
            until("the log says so", lambda: "descriptors exhausted" in side.pod.proxy.log, 10)
            began, used = time.monotonic(), cpu_seconds(pid)
            time.sleep(1)
            spent.append((cpu_seconds(pid) - used) / (time.monotonic() - began))
        finally:
            ceiling(pid, limit)
        answers = {fate(peer) for peer in peers}
        return "served" if "200" in answers and answers <= {"200", "502"} else str(answers)

    side.attack(attack, "served", "descriptors exhausted", "tcp")
    assert spent[0] < 0.5, f"{spent[0]:.2f} of a core went into waiting for descriptors"


def test_more_connections_than_a_proxy_may_have(mesh: Mesh, outsider: Pod) -> None:
    """Few descriptors by the node's hard limit: a quarter of them are for callers from outside."""
    command = ["prlimit", "--nofile=64:400", *as_proxy_user(), sys.executable, "-m", "proxy"]
    pod = mesh.pod("poor", command=command)
    with App(pod, PORT):
        assert pod.proxy.metric("process_max_fds") == 400, "the soft limit was not raised to the hard one"
        address = (pod.ip, PORT)

        def attack() -> str:
            peers = [Peer(outsider.connect(address)) for _ in range(130)]
            for peer in peers:
                peer.send("G")
            refused = [peer for peer in peers if select.select([peer.socket], [], [], 0.02)[0]]
            for peer in peers:
                peer.reset()
            return "some refused" if 20 <= len(refused) <= 31 else f"{len(refused)} refused"

        cause = Cause.of("inbound_tcp_errors_total", words="too many connections", error="too many connections")
        course = withstand(pod.proxy, steady(outsider, address), attack, ending={"some refused"}, cause=cause)
        print(course)
