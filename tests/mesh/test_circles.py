"""A connection's memory goes with the connection: nothing of it waits for the garbage collector, however it ends."""

import json
import socket
import struct
import sys
import time
from collections.abc import Callable

import pytest
from h2.events import RequestReceived, StreamEnded

from tests.kit.circles import WRITE_SECONDS
from tests.kit.http2 import GET, call, serve
from tests.kit.lines import App, Line
from tests.kit.sidecar import as_proxy_user, read_answer
from tests.kit.topology import Mesh, Pod

TIMES = 10
OF_A_DESTINATION = {
    "Destination", "Balancer", "HTTP1Pool", "HTTP2Pool", "PoolObserver", "IdleTimer", "QueueTimer", "WaitTimer",
    "Watch", "State", "References", "Target", "TimeLimits", "Balancing", "Endpoint",
}  # fmt: skip
"""What a Service that nobody has called for a while leaves to the collector: a few kilobytes, seldom."""
PORT, OPAQUE, HTTP2 = 9_700, 9_701, 9_702


class Watched:
    """A meshed pod whose proxy lists what only a collector would free."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        folder = mesh.folder / f"circles-{name}"
        folder.mkdir()
        folder.chmod(0o777)
        self.file = folder / "circles.json"
        command = [*as_proxy_user(), sys.executable, "-m", "tests.kit.circles", str(self.file)]
        self.pod: Pod = mesh.pod(name, command=command, opaque=str(OPAQUE))

    def found(self) -> dict[str, int]:
        """What it has found by now: two whole looks from here on."""
        seen, until = self.file.stat().st_mtime_ns, time.monotonic() + 10
        for _ in range(2):
            while self.file.stat().st_mtime_ns == seen and time.monotonic() < until:
                time.sleep(WRITE_SECONDS / 4)
            seen = self.file.stat().st_mtime_ns
        found: dict[str, int] = json.loads(self.file.read_text())
        return found


@pytest.fixture(scope="module")
def both(mesh: Mesh) -> tuple[Watched, Watched]:
    return Watched(mesh, "circles-client"), Watched(mesh, "circles-server")


@pytest.fixture
def client(both: tuple[Watched, Watched]) -> Pod:
    return both[0].pod


@pytest.fixture
def server(both: tuple[Watched, Watched]) -> Pod:
    return both[1].pod


@pytest.fixture(autouse=True)
def nothing_waits(both: tuple[Watched, Watched]) -> Callable[[], None]:
    before = [each.found() for each in both]

    def check() -> None:
        time.sleep(0.3)  # the proxies notice the last end
        for each, old in zip(both, before, strict=True):
            counts = {name: count for name, count in each.found().items() if name not in OF_A_DESTINATION}
            new = {name: count - old.get(name, 0) for name, count in counts.items() if count > old.get(name, 0)}
            assert not new, f"{each.pod.name}: only the collector would free {new}"

    return check


@pytest.fixture
def web(mesh: Mesh, server: Pod) -> tuple[str, int]:
    return mesh.service("circles", PORT, [server])


ENDINGS: dict[str, bytes] = {
    "kept alive": b"GET / HTTP/1.1\r\nhost: web\r\n\r\n",
    "closed by agreement": b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n",
    "with a body": b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello",
    "refused": b"GET / HTTP/1.1\r\nhost: web\r\nhost: web\r\n\r\n",
    "no head": b"GET / HT",
    "no body": b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhe",
    "nothing": b"",
    "upgraded": b"GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("said", ENDINGS.values(), ids=ENDINGS.keys())
def test_http1(
    said: bytes, reset: bool, client: Pod, server: Pod, web: tuple[str, int], nothing_waits: Callable[[], None]
) -> None:
    with App(server, PORT):
        for _ in range(TIMES):
            with client.connect(web) as connection:
                connection.sendall(said)
                if said.endswith((b"\r\n\r\n", b"hello")):
                    read_answer(connection)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        nothing_waits()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_opaque(mesh: Mesh, client: Pod, server: Pod, reset: bool, nothing_waits: Callable[[], None]) -> None:
    address = mesh.service("circles-opaque", OPAQUE, [server], opaque=str(OPAQUE))
    with App(server, OPAQUE):
        for _ in range(TIMES):
            with client.connect(address) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
                assert connection.recv(4096)
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        nothing_waits()


def test_http2(mesh: Mesh, client: Pod, server: Pod, nothing_waits: Callable[[], None]) -> None:
    for _ in range(TIMES // 2):
        with Line(mesh, client, server) as line:
            caller = call(line)
            caller.ask(GET)
            app = serve(line)
            app.answer(app.expect(RequestReceived).stream_id, b"answer")
            caller.expect(StreamEnded)
            caller.ask(GET)  # under way when the connection ends
    nothing_waits()


def test_endpoints_that_come_and_go(
    mesh: Mesh, client: Pod, server: Pod, web: tuple[str, int], nothing_waits: Callable[[], None]
) -> None:
    with App(server, PORT), client.connect(web) as connection:
        for number in range(TIMES):
            mesh.endpoints("circles", [server] if number % 2 else [], PORT)
            if number % 2:
                connection.sendall(ENDINGS["kept alive"])
                assert read_answer(connection).status == 200
        nothing_waits()


def test_no_application(client: Pod, web: tuple[str, int], nothing_waits: Callable[[], None]) -> None:
    for _ in range(TIMES):
        with client.connect(web) as connection:
            connection.sendall(ENDINGS["kept alive"])
            assert read_answer(connection).status == 502
    nothing_waits()


def test_strangers(mesh: Mesh, server: Pod, outsider: Pod, nothing_waits: Callable[[], None]) -> None:
    """Connections that end before a handshake, and in the middle of one."""
    hello = bytes.fromhex("1603010200010001fc0303")
    for said in (b"", hello, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00") * (TIMES // 2):
        with outsider.connect((server.ip, PORT)) as connection:
            connection.sendall(said)
    nothing_waits()


def test_scrapes(server: Pod, nothing_waits: Callable[[], None]) -> None:
    assert server.proxy is not None
    for _ in range(TIMES):
        assert server.proxy.get("/metrics").status == 200
        assert server.proxy.get("/ready").status == 200
    nothing_waits()
