"""Attacks on what lies below HTTP: handshakes, detection and descriptors, each with the five checks of `withstand`."""

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import time

import pytest

from tests.kit.hostile import Cause, descriptors, steady, withstand
from tests.kit.lines import App, Peer
from tests.kit.sidecar import as_proxy_user
from tests.kit.siege import (
    HEAD,
    MANY,
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
