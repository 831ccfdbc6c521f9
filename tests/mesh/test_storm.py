"""Callers and applications that break every habit at once: the proxies outlast them, and serve the next request."""

import os
import random
import socket
import threading
import time

import pytest

from tests.kit.lines import OPAQUE_RANGE, App, Peer
from tests.kit.topology import Mesh, Pod

SEED = int(os.environ.get("TULLE_SEED") or random.randrange(1 << 32))
SECONDS = float(os.environ.get("TULLE_STORM_SECONDS") or 12)

REQUESTS = (
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000,
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nafter",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nafter",
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"\x00opaque",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz",
    b"GET / HTTP/1.1\nhost: a\n\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000,
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nafter",
    b"HTTP/1.1 503 No\r\nl5d-proxy-error: unreached: lie\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/9 nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\ntoo much",
    b"",
)


def misbehave(random_: random.Random, peer: Peer, texts: tuple[bytes, ...]) -> None:
    """Say some of it, listen or not, and leave in some way."""
    peer.socket.settimeout(0.3)
    for _ in range(random_.choice((1, 1, 2, 5))):
        text = random_.choice(texts)
        if random_.random() < 0.3:
            text = text[: random_.randrange(len(text) + 1)]
        while text:
            size = random_.choice((1, 7, len(text), len(text), len(text)))
            peer.send(text[:size])
            text = text[size:] if random_.random() < 0.95 else b""
            if random_.random() < 0.05:
                time.sleep(0.02)
        if random_.random() < 0.7:
            try:
                peer.socket.recv(random_.choice((1, 100, 65536)))
            except TimeoutError:
                pass
    kind = random_.randrange(4)
    if kind == 0:
        peer.reset()
    elif kind == 1:
        peer.finish()
        try:
            peer.to_end()
        except TimeoutError:
            pass
    peer.close()


class Storm:
    """Threads that call, and threads that answer, all badly."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []
        self.rounds = 0

    def start(self, work: object, *arguments: object) -> None:
        own = random.Random(self.random.randrange(1 << 32))
        thread = threading.Thread(target=work, args=(own, *arguments), daemon=True)  # type: ignore[arg-type]
        thread.start()
        self.threads.append(thread)

    def call(self, random_: random.Random, pod: Pod, addresses: list[tuple[str, int]]) -> None:
        while not self.stop.is_set():
            try:
                misbehave(random_, Peer(pod.connect(random_.choice(addresses), 2)), REQUESTS)
            except OSError:
                pass
            self.rounds += 1

    def answer(self, random_: random.Random, listener: socket.socket) -> None:
        listener.settimeout(0.5)
        while not self.stop.is_set():
            try:
                peer = Peer(listener.accept()[0])
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                peer.socket.settimeout(0.3)
                if random_.random() < 0.9:
                    peer.socket.recv(random_.choice((1, 65536)))
                misbehave(random_, peer, ANSWERS)
            except OSError:
                peer.close()

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(10)


@pytest.mark.timeout(300)
def test_proxies_outlast_a_storm(mesh: Mesh) -> None:
    print(f"TULLE_SEED={SEED}")
    with Mesh() as own:
        caller = own.pod("caller", INBOUND_DETECT_TIMEOUT="1s", OUTBOUND_DETECT_TIMEOUT="1s")
        pods = [own.pod(f"app-{n}", opaque=OPAQUE_RANGE, INBOUND_DETECT_TIMEOUT="1s") for n in range(2)]
        outside = own.pod("outside", meshed=False)
        listeners = [pod.listen(port) for pod in pods for port in (8080, 8080 + 1, 20_500)]
        everyone = [*pods, outside]
        addresses = [
            own.service("http", 80, pods, target=8080),
            own.service("mixed", 81, everyone, target=8081),
            own.service("opaque", 20_500, pods, target=20_500, opaque="20500"),
            own.service("nobody", 82, [], target=1),
            own.service("closed", 83, pods, target=9),
            *((pod.ip, 8080) for pod in everyone),
        ]
        direct = [(pod.ip, port) for pod in pods for port in (8080, 20_500, 4143, 4191, 9)]
        storm = Storm(SEED)
        for listener in listeners:
            for _ in range(2):
                storm.start(storm.answer, listener)
        for _ in range(10):
            storm.start(storm.call, caller, addresses)
        for _ in range(4):
            storm.start(storm.call, outside, direct)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.5)
            # Discovery moves meanwhile, so that endpoints come and go under what uses them.
            chosen = storm.random.sample(pods, storm.random.randrange(3))
            own.endpoints("http", chosen, 8080)
        storm.end()
        for listener in listeners:
            listener.close()
        assert storm.rounds > 100
        assert not own.complaints(), own.complaints()[:5]
        with App(pods[0], 8090):
            address = own.service("after", 84, [pods[0]], target=8090)
            assert caller.get(address).status == 200
        time.sleep(4)
        for pod in (caller, *pods):
            open_now = {
                tuple(labels.items()): value
                for labels, value in pod.proxy.samples("tcp_open_connections")
                if value and labels.get("target_port") != "4191"
            }
            assert not open_now, f"TULLE_SEED={SEED} {pod.name} still holds {open_now}"
            assert pod.proxy.metric("process_open_fds") < 60
