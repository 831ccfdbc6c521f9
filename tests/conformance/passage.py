"""One thread that is both ends of a proxied connection: sends a caller's bytes, answers as the application, and keeps
what each of them saw. Does I/O.
"""

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from tests.kit.topology import Pod

SECONDS: Final = 10.0


class Application(Protocol):
    """The application's side of one connection."""

    def begin(self) -> None:
        """Another case begins, at the end of a message: forget what was seen."""

    def receive(self, data: bytes) -> bytes:
        """Bytes that arrived (empty: the end); returns what to answer."""

    is_over: bool
    """Whether it wants its connection closed."""


class StuckError(AssertionError):
    """A caller whose connection did not end in time."""


class Passage:
    """A way through the proxies, with this thread at both ends."""

    def __init__(
        self, listener: socket.socket, connect: Callable[[], socket.socket], make: Callable[[], Application]
    ) -> None:
        self.listener = listener
        self.connect = connect
        self.make = make
        self.selector = selectors.DefaultSelector()
        self.applications: list[Application] = []
        """Those whose connection carried something since the last `exchange`."""
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close what is open."""
        for key in list(self.selector.get_map().values()):
            if key.fileobj is not self.listener:
                key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def exchange(self, pieces: Sequence[bytes], until: Callable[[bytes], bool] | None = None) -> bytes:
        """Send a caller's bytes on a connection of their own, end it, and return all that came back up to its end.

        With `until`, the caller keeps its side open until that says that it has seen enough.
        """
        self.applications = []
        connection = self.connect()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back, is_ended, said = b"", False, False
        waiting = list(pieces)

        def heard() -> None:
            nonlocal back, is_ended
            try:
                chunk = connection.recv(262_144)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            back += chunk
            is_ended = not chunk

        self.selector.register(connection, selectors.EVENT_READ, heard)
        deadline = time.monotonic() + SECONDS
        try:
            while not is_ended:
                while waiting:
                    try:
                        sent = connection.send(waiting[0])
                    except BlockingIOError:
                        break
                    except OSError:
                        waiting = []
                        break
                    waiting[0] = waiting[0][sent:]
                    if not waiting[0]:
                        waiting.pop(0)
                if not waiting and not said and (until is None or until(back)):
                    said = True
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                self._turn(0.002 if waiting else 0.05)
                if time.monotonic() > deadline:
                    raise StuckError(f"no end after {SECONDS} s; sent: {list(pieces)!r}; seen: {back!r}")
        finally:
            self.selector.unregister(connection)
            connection.close()
        while self._turn(0):
            pass
        return back

    def _turn(self, seconds: float) -> bool:
        """Serve what is ready; whether anything was."""
        ready = self.selector.select(seconds)
        for key, _ in ready:
            key.data()
        return bool(ready)

    def _accept(self) -> None:
        try:
            accepted = self.listener.accept()[0]
        except BlockingIOError:
            return
        accepted.setblocking(False)
        application = self.make()

        def heard() -> None:
            try:
                chunk = accepted.recv(262_144)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            if application not in self.applications:
                self.applications.append(application)
                application.begin()
            answer = application.receive(chunk)
            with contextlib.suppress(OSError):
                accepted.sendall(answer)
            if not chunk or application.is_over:
                self.selector.unregister(accepted)
                accepted.close()

        self.selector.register(accepted, selectors.EVENT_READ, heard)


@contextlib.contextmanager
def through(
    pod: Pod, port: int, caller: Pod, address: tuple[str, int], make: Callable[[], Application]
) -> Iterator[Passage]:
    """A passage from a caller that dials an address to the application of a pod on a port."""
    listener = pod.listen(port)
    made = Passage(listener, lambda: caller.connect(address), make)
    yield made
    made.close()
    listener.close()
