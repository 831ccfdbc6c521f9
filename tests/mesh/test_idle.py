"""What connections cost that wait."""

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from tests.kit.topology import Mesh, Pod

CONNECTIONS = 1000
SECONDS = 3.0
SHARE = 0.05
"""Of a core."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(pod: Pod) -> float:
    """Of a core, over SECONDS in which nothing happens."""
    before, began = cpu_seconds(pod.proxy.pid), time.monotonic()
    time.sleep(SECONDS)
    return (cpu_seconds(pod.proxy.pid) - before) / (time.monotonic() - began)


@pytest.mark.parametrize("count", [0, CONNECTIONS])
def test_a_proxy_whose_connections_wait_rests(mesh: Mesh, client: Pod, web: Pod, count: int) -> None:
    """One byte of what may become a request line: detection waits for the rest, without looking at the clock."""
    address = mesh.service(f"idle-{count}", 8099, [web])
    with contextlib.ExitStack() as held:
        waiting: list[socket.socket] = []
        for _ in range(count):
            waiting.append(held.enter_context(client.connect(address)))
            waiting[-1].sendall(b"G")
        used = share(client)
        print(f"{count} waiting connections: {used:.4f} of a core")
        assert used < SHARE
        assert all(not readable(connection) for connection in waiting)


def readable(connection: socket.socket) -> bool:
    """Whether something came, or the end."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    return True
