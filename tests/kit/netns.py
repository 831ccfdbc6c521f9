"""Network namespaces of a test: one is a switch, the others hang on it like pods on a node. Sockets made in them by
this process.

Names carry the process id, and only what was made here is removed. Nothing is routed outside: the addresses exist in
these namespaces alone.
"""

import ctypes
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

T = TypeVar("T")

NETWORK: Final = "10.123"
NETWORK6: Final = "fd12:3"
CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def ip(*arguments: str) -> None:
    """Run `ip`; raises with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Namespace:
    """One network namespace."""

    def __init__(self, label: str) -> None:
        self.name = f"tulle-{os.getpid()}-{next(_numbers)}-{label}"[:60]
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def command(self, *command: str) -> list[str]:
        """A command line that runs `command` inside; the process started is `command` itself in the end."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=60, check=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's new sockets belong to the namespace meanwhile; they stay there for life."""
        here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            yield
        finally:
            _setns(here)
            os.close(there)
            os.close(here)

    def connect(self, address: tuple[str, int], seconds: float = 10) -> socket.socket:
        """A TCP connection from inside; each piece that is sent leaves at once."""
        with self.entered():
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return connection

    def listen(self, address: tuple[str, int]) -> socket.socket:
        """A listening TCP socket inside."""
        with self.entered():
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
        listener.bind(address)
        listener.listen(1024)
        return listener

    def within(self, work: Callable[[], T]) -> T:
        """Call something that makes its own sockets."""
        with self.entered():
            return work()

    def close(self) -> None:
        """Remove it; its interfaces go with it."""
        ip("netns", "delete", self.name)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Switch:
    """The bridge that joins pods. A default route leads to it, so that Service addresses can be dialled at all."""

    def __init__(self) -> None:
        self.namespace = Namespace("switch")
        self._hosts = itertools.count(2)
        for command in (
            "link add br0 type bridge",
            "link set br0 up",
            f"address add {NETWORK}.0.1/16 dev br0",
            f"address add {NETWORK6}::1/64 dev br0 nodad",
            # A dialled Service address that nothing redirected ends here, at once and loudly.
            "route add unreachable 10.96.0.0/12",
        ):
            ip("-n", self.namespace.name, *command.split())

    def plug(self, namespace: Namespace) -> tuple[str, str]:
        """Give a namespace an interface on the bridge; returns its addresses."""
        number = next(self._hosts)
        address = f"{NETWORK}.{number >> 8}.{number & 255}"
        address6 = f"{NETWORK6}::{number:x}"
        port = f"p{number}"
        outside = self.namespace.name
        for where, command in (
            (outside, f"link add {port} type veth peer name eth0 netns {namespace.name}"),
            (outside, f"link set {port} master br0 up"),
            (namespace.name, f"address add {address}/16 dev eth0"),
            (namespace.name, f"address add {address6}/64 dev eth0 nodad"),
            (namespace.name, "link set eth0 up"),
            (namespace.name, f"route add default via {NETWORK}.0.1"),
            (namespace.name, f"-6 route add default via {NETWORK6}::1"),
        ):
            ip("-n", where, *command.split())
        return address, address6

    def close(self) -> None:
        """Remove the bridge and its namespace."""
        self.namespace.close()
