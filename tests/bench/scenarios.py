"""The scenarios: each loads one side once and says what it cost. Does I/O."""

import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from tests.bench.measure import LOAD_CORE, cpu_seconds, memory_mb, run_wrk
from tests.bench.sides import Side

CONNECTIONS: Final = 32
IDLE: Final = 1000

Figures = dict[str, float]


class UnfitError(RuntimeError):
    """A round that measured something else: answers were missing or wrong."""


def cost(side: Side) -> float:
    """CPU seconds of both proxies so far."""
    return sum(cpu_seconds(pid) for pid in side.pids)


def memory(side: Side) -> float:
    """Resident memory of both proxies now."""
    return sum(memory_mb(pid) for pid in side.pids)


def requests(side: Side, seconds: float, *headers: str) -> Figures:
    """wrk over both proxies to nginx."""
    url = f"http://{side.http[0]}:{side.http[1]}/"
    before = cost(side)
    load = run_wrk(side.caller.namespace.command(), url, seconds, CONNECTIONS, *headers)
    spent = cost(side) - before
    if load.errors or not load.requests:
        raise UnfitError(f"{side.name}: {load.errors} errors in {load.requests} requests")
    return {
        "rps": load.rps, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms,
        "cpu_us_per_request": spent * 1e6 / load.requests, "rss_mb": memory(side),
    }  # fmt: skip


def http1_100b(side: Side, seconds: float) -> Figures:
    """Small requests over connections that stay."""
    return requests(side, seconds)


def http1_no_keepalive(side: Side, seconds: float) -> Figures:
    """A new connection from the application for each request."""
    return requests(side, seconds, "Connection: close")


BLAST: Final = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
data = bytes(1 << 18)
end = time.monotonic() + float(sys.argv[3])
begun = time.monotonic()
sent = 0
while time.monotonic() < end:
    connection.sendall(data)
    sent += len(data)
connection.shutdown(socket.SHUT_WR)
seen = connection.makefile("rb").read()
assert int(seen) == sent, (seen, sent)
print(sent, time.monotonic() - begun)
"""


def tcp_throughput(side: Side, seconds: float) -> Figures:
    """One opaque connection, as fast as it goes."""
    import subprocess

    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-c", BLAST, side.tcp[0], str(side.tcp[1]), f"{seconds:g}"]
    before = cost(side)
    done = subprocess.run(side.caller.namespace.command(*command), capture_output=True, text=True, timeout=seconds + 60)
    spent = cost(side) - before
    if done.returncode:
        raise UnfitError(f"{side.name}: {done.stderr}")
    sent, took = (float(each) for each in done.stdout.split())
    return {"gb_per_s": sent / took / 1e9, "cpu_s_per_gb": spent / (sent / 1e9), "rss_mb": memory(side)}


def idle_1000(side: Side, seconds: float) -> Figures:
    """Connections that have carried one request each and stay open."""
    side.pids = side.restart()
    time.sleep(0.5)
    empty = memory(side)
    open_now: list[socket.socket] = []
    try:
        for _ in range(IDLE):
            connection = side.caller.connect(side.http)
            open_now.append(connection)
            connection.sendall(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                raise UnfitError(f"{side.name}: no answer on connection {len(open_now)}")
        before = cost(side)
        time.sleep(min(seconds, 3))
        spent = cost(side) - before
        full = memory(side)
    finally:
        for connection in open_now:
            connection.close()
    return {
        "rss_mb_empty": empty, "rss_mb": full, "rss_kb_per_connection": (full - empty) * 1000 / IDLE,
        "cpu_percent": spent / min(seconds, 3) * 100,
    }  # fmt: skip


SCENARIOS: Final[dict[str, Callable[[Side, float], Figures]]] = {
    "http1-100b": http1_100b,
    "http1-no-keepalive": http1_no_keepalive,
    "tcp-throughput": tcp_throughput,
    "idle-1000": idle_1000,
}
