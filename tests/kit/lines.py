"""Conversations over a mesh: what the client says, what the application hears, word for word. Also small applications
for load.
"""

import contextlib
import fcntl
import itertools
import socket
import struct
import sys
import termios
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

from tests.kit.sidecar import Answer, read_answer
from tests.kit.topology import Mesh, Pod

SECONDS: Final = 10.0
_ports = itertools.count(10_000)
_opaque_ports = itertools.count(20_000)
OPAQUE_RANGE: Final = "20000-20999"
"""Ports that `Line(opaque=True)` takes; give it to the pods that serve such lines."""


class Peer:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(SECONDS)
        self.held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *data: bytes | str) -> None:
        """Send everything in one piece; text goes as Latin-1."""
        self.socket.sendall(b"".join(each.encode("latin-1") if isinstance(each, str) else each for each in data))

    def _more(self) -> bool:
        data = self.socket.recv(262_144)
        self.held += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Read up to and including a mark."""
        while mark not in self.held:
            if not self._more():
                raise AssertionError(f"ended before {mark!r}; seen: {self.held[-2000:]!r}")
        found, _, self.held = self.held.partition(mark)
        return found + mark

    def head(self) -> tuple[str, dict[str, str]]:
        """Read the head of a message: its first line, and its fields by lower-case name."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            fields[name.lower()] = (
                f"{fields[name.lower()]}, {value.strip()}" if name.lower() in fields else value.strip()
            )
        return lines[0], fields

    def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self.held) < size:
            if not self._more():
                raise AssertionError(f"ended after {len(self.held)} of {size} bytes: {self.held[:200]!r}")
        found, self.held = self.held[:size], self.held[size:]
        return found

    def to_end(self) -> bytes:
        """Read until the other side ends."""
        while self._more():
            pass
        found, self.held = self.held, b""
        return found

    def is_ended(self) -> bool:
        """Whether the other side ended, by FIN or reset, with nothing more to say."""
        try:
            return self.to_end() == b""
        except ConnectionResetError:
            return True

    def is_only(self, start: bytes) -> bool:
        """Whether all that comes, until the end, is one beginning of TLS: no record after the first."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        return self.held.startswith(start) and len(self.held) == 5 + int.from_bytes(self.held[3:5])

    def is_silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        if self.held:
            return False
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK) and False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(SECONDS)

    def answer(self, method: str = "GET") -> Answer:
        """Read a response."""
        assert not self.held
        return read_answer(self.socket, method)

    def finish(self) -> None:
        """Say that no more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def drained(self) -> None:
        """Wait until the other side's host has all that was sent."""
        deadline = time.monotonic() + SECONDS
        while int.from_bytes(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
            assert time.monotonic() < deadline, "what was sent is not taken"
            time.sleep(0.005)

    def reset(self) -> None:
        """Drop it, so that the other side sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close it."""
        self.socket.close()


class Line:
    """A Service of its own with one application port behind it, that the test itself serves."""

    def __init__(
        self,
        mesh: Mesh,
        client: Pod,
        server: Pod,
        *,
        opaque: bool = False,
        direct: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        self.client = client
        self.server = server
        self.port = next(_opaque_ports if opaque else _ports)
        self.listener = server.listen(self.port)
        self.listener.settimeout(SECONDS)
        self.address = (server.ip, self.port)
        if not direct:
            marked = str(self.port) if opaque else None
            self.address = mesh.service(
                f"line-{self.port}", self.port, [server], opaque=marked, annotations=annotations
            )
        self.peers: list[Peer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.close()

    def open(self) -> Peer:
        """The client connects."""
        self.peers.append(Peer(self.client.connect(self.address, SECONDS)))
        return self.peers[-1]

    def accept(self) -> Peer:
        """The application takes a connection."""
        self.peers.append(Peer(self.listener.accept()[0]))
        return self.peers[-1]

    def no_connection(self, seconds: float = 0.3) -> bool:
        """Whether nothing reaches the application for a while."""
        self.listener.settimeout(seconds)
        try:
            self.listener.accept()[0].close()
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self.listener.settimeout(SECONDS)


class Listening(ABC):
    """An application's listener: each connection has a thread, and all of them end with the context."""

    def __init__(self, pod: Pod, port: int) -> None:
        self.pod = pod
        self.listener = pod.listen(port)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and drop what is open."""
        # Closing alone does not wake a thread in accept or recv.
        for each in (self.listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @abstractmethod
    def _serve(self, connection: socket.socket) -> None:
        """Talk over one connection, in a thread of its own."""


class App(Listening):
    """An application that answers every request after `delay` seconds with its name; counts what it got and answered.
    Delay, status and fields hold for requests from now on."""

    def __init__(self, pod: Pod, port: int, delay: float = 0.0, status: int = 200, fields: str = "") -> None:
        self.delay = delay
        self.status = status
        self.fields = fields
        self.received = 0
        self.answered = 0
        super().__init__(pod, port)

    def _serve(self, connection: socket.socket) -> None:
        body = self.pod.name.encode()
        held = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                held += data
                while b"\r\n\r\n" in held:
                    _, _, held = held.partition(b"\r\n\r\n")
                    self.received += 1
                    status, fields = self.status, self.fields.encode()
                    if self.delay:
                        time.sleep(self.delay)
                    self.answered += 1
                    connection.sendall(
                        b"HTTP/1.1 %d x\r\n%bcontent-length: %d\r\n\r\n%b" % (status, fields, len(body), body)
                    )
        connection.close()


class Load:
    """Clients that send one request after another, each on a connection that stays, and count every failure."""

    def __init__(self, pod: Pod, address: tuple[str, int], clients: int = 4, pause: float = 0.005) -> None:
        self.pod = pod
        self.address = address
        self.pause = pause
        self.ok = 0
        self.slowest = 0.0
        self.bodies: dict[bytes, int] = {}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def open(self) -> Any:
        """A connection to send requests on, with a method `close`."""
        return self.pod.connect(self.address, SECONDS)

    def ask(self, connection: Any) -> Answer:
        """One request on it."""
        connection.sendall(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        return read_answer(connection)

    def _run(self) -> None:
        connection: Any = None
        while not self._stop.is_set():
            try:
                connection = connection or self.open()
                begun = time.monotonic()
                answer = self.ask(connection)
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    if answer.status == 200:
                        self.ok += 1
                        self.bodies[answer.body] = self.bodies.get(answer.body, 0) + 1
                    else:
                        self.failures.append(repr(answer))
                if answer.headers.get("connection") == "close":
                    connection.close()
                    connection = None
            except Exception as error:
                with self._lock:
                    self.failures.append(repr(error))
                if connection is not None:
                    connection.close()
                connection = None
            time.sleep(self.pause)
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Run something beside the test; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(SECONDS * 2)
    assert not thread.is_alive(), "still running"
    if raised:
        raise raised[0]
