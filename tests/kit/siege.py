"""A pod under siege, for the hostile suites: from where it is attacked, and what becomes of the attackers."""

import contextlib
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.kit.hostile import Cause, Course, steady, withstand
from tests.kit.lines import App, Peer
from tests.kit.topology import Mesh, Pod

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
_numbers = itertools.count(1)
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
    pod = mesh.pod(f"castle-{next(_numbers)}", settings=SHORT)
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
        ports = {port: mesh.service(f"hostile-{next(_numbers)}", 80, [web], target=port) for port in (PORT, MUTE)}
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
