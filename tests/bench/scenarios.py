"""The scenarios: each loads one side once and says what it cost. Does I/O."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.bench.measure import LOAD_CORE, cpu_seconds, memory_mb, run_fortio, run_h2load, run_wrk
from tests.bench.origin import EMPTY_MESSAGE, GRPC_PATH, HTTP2_PORT, SIZES
from tests.bench.sides import WIDE, Side
from tests.kit import tools

CONNECTIONS: Final = 32
OPEN_LOOP_CONNECTIONS: Final = 16
IDLE: Final = 1000
WARM_REQUESTS: Final = 8 * WIDE
"""So many leave hardly an endpoint without a connection."""
WARM_SECONDS: Final = 90.0

Figures = dict[str, float]


class UnfitError(RuntimeError):
    """A round that measured something else: answers were missing or wrong."""


def cost(side: Side) -> float:
    """CPU seconds of both proxies so far."""
    return sum(cpu_seconds(pid) for pid in side.pids)


def memory(side: Side) -> float:
    """Resident memory of both proxies now."""
    return sum(memory_mb(pid) for pid in side.pids)


def check(side: Side, requests: int, failures: int) -> None:
    """A round with a wrong answer measures nothing."""
    if failures or not requests:
        raise UnfitError(f"{side.name}: {failures} failures in {requests} requests")


def requests(side: Side, seconds: float, path: str = "/", *headers: str, at: tuple[str, int] | None = None) -> Figures:
    """wrk over both proxies to nginx."""
    host, port = at or side.http
    before = cost(side)
    load = run_wrk(side.caller.namespace.command(), f"http://{host}:{port}{path}", seconds, CONNECTIONS, *headers)
    spent = cost(side) - before
    check(side, load.requests, load.errors)
    return {
        "rps": load.rps, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms,
        "cpu_us_per_request": spent * 1e6 / load.requests, "rss_mb": memory(side),
    }  # fmt: skip


def http1_100b(side: Side, seconds: float) -> Figures:
    """Small requests over connections that stay."""
    return requests(side, seconds)


def http1_10kb(side: Side, seconds: float) -> Figures:
    """Answers of 10 kB over connections that stay."""
    return requests(side, seconds, "/files/10kb")


def http1_no_keepalive(side: Side, seconds: float) -> Figures:
    """A new connection from the application for each request."""
    return requests(side, seconds, "/", "Connection: close")


def streams(side: Side, seconds: float, path: str, *arguments: str) -> Figures:
    """h2load over both proxies to nginx."""
    url = f"http://{side.http2[0]}:{side.http2[1]}{path}"
    before, known = cost(side), counted(side)
    count, rate, failures = run_h2load(side.caller.namespace.command(), url, seconds, *arguments)
    spent = cost(side) - before
    check(side, count, failures)
    figures = {"rps": rate, "cpu_us_per_request": spent * 1e6 / count, "rss_mb": memory(side)}
    if known is not None:
        figures["counted"] = ((counted(side) or 0) - known) / count
    return figures


def counted(side: Side) -> float | None:
    """Requests that our own proxy has counted: bytes that merely passed are not HTTP/2 proxying."""
    if side.name != "tulle":
        return None
    port = str(HTTP2_PORT)
    return float(side.caller.proxy.metric("request_total", direction="outbound", target_port=port))


def h2_100b(side: Side, seconds: float) -> Figures:
    """Small requests, many at once on four HTTP/2 connections."""
    return streams(side, seconds, "/")


def grpc_unary(side: Side, seconds: float) -> Figures:
    """gRPC calls without content, many at once on four connections."""
    message = side.caller.folder / "message"
    message.write_bytes(EMPTY_MESSAGE)
    return streams(
        side, seconds, GRPC_PATH, "-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"
    )


def body_100mb(side: Side, seconds: float) -> Figures:
    """Answers of 100 MB over one connection."""
    size = SIZES["100mb"]
    url = f"http://{side.http[0]}:{side.http[1]}/files/100mb"
    curl = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{size_download}"]
    command = side.caller.namespace.command("taskset", "-c", LOAD_CORE, *curl, url)
    before, begun, fetched = cost(side), time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode or int(done.stdout) != size:
            raise UnfitError(f"{side.name}: {done.stdout} bytes {done.stderr}")
        fetched += size
    took, spent = time.monotonic() - begun, cost(side) - before
    return {"gb_per_s": fetched / took / 1e9, "cpu_s_per_gb": spent / (fetched / 1e9), "rss_mb": memory(side)}


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
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-c", BLAST, side.tcp[0], str(side.tcp[1]), f"{seconds:g}"]
    before = cost(side)
    done = subprocess.run(side.caller.namespace.command(*command), capture_output=True, text=True, timeout=seconds + 60)
    spent = cost(side) - before
    if done.returncode:
        raise UnfitError(f"{side.name}: {done.stderr}")
    sent, took = (float(each) for each in done.stdout.split())
    return {"gb_per_s": sent / took / 1e9, "cpu_s_per_gb": spent / (sent / 1e9), "rss_mb": memory(side)}


@contextlib.contextmanager
def held(side: Side, data: bytes, answer: bytes) -> Iterator[None]:
    """1,000 connections that have said something, were answered if an answer is expected, and stay."""
    open_now: list[socket.socket] = []
    try:
        for _ in range(IDLE):
            connection = side.caller.connect(side.http)
            open_now.append(connection)
            connection.sendall(data)
            if answer and not connection.recv(4096).startswith(answer):
                raise UnfitError(f"{side.name}: no answer on connection {len(open_now)}")
        yield
    finally:
        for connection in open_now:
            connection.close()


def percent_idle(side: Side, seconds: float) -> float:
    """CPU of both proxies over a while, in percent of one core."""
    before = cost(side)
    time.sleep(seconds)
    return (cost(side) - before) / seconds * 100


def idle_1000(side: Side, seconds: float) -> Figures:
    """Connections that have carried one request each and stay open; then such as have said one byte."""
    side.pids = side.restart()
    time.sleep(0.5)
    empty = memory(side)
    with held(side, b"GET / HTTP/1.1\r\nhost: web\r\n\r\n", b"HTTP/1.1 200"):
        busy = percent_idle(side, min(seconds, 3))
        full = memory(side)
    with held(side, b"G", b""):
        waiting = percent_idle(side, min(seconds, 3))
    return {
        "rss_mb_empty": empty, "rss_mb": full, "rss_kb_per_connection": (full - empty) * 1000 / IDLE,
        "cpu_percent": busy, "cpu_percent_one_byte": waiting,
    }  # fmt: skip


def endpoints_1000(side: Side, seconds: float) -> Figures:
    """One service over 1,000 endpoints, all of them warm, beside the same over three."""
    few = requests(side, seconds, at=side.few)
    warmed, deadline = 0.0, time.monotonic() + WARM_SECONDS
    while warmed < WARM_REQUESTS and time.monotonic() < deadline:
        warmed += requests(side, seconds, at=side.wide)["rps"] * seconds
    wide = requests(side, seconds, at=side.wide)
    growth = wide["cpu_us_per_request"] / few["cpu_us_per_request"]
    return {**wide, "cpu_us_per_request_of_3": few["cpu_us_per_request"], "growth": growth}


def open_loop(side: Side, seconds: float, rate: float) -> Figures:
    """fortio at a fixed rate, 1 kB answers."""
    url = f"http://{side.http[0]}:{side.http[1]}/files/1kb"
    before = cost(side)
    load = run_fortio(tools.tool("fortio"), side.caller.namespace.command(), url, seconds, rate, OPEN_LOOP_CONNECTIONS)
    spent = cost(side) - before
    check(side, load.requests, load.errors)
    return {
        "rps": load.rps, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms,
        "cpu_us_per_request": spent * 1e6 / load.requests,
    }  # fmt: skip


def open_loop_200(side: Side, seconds: float) -> Figures:
    """200 requests/s, whatever happens."""
    return open_loop(side, seconds, 200)


def open_loop_1000(side: Side, seconds: float) -> Figures:
    """1,000 requests/s, whatever happens."""
    return open_loop(side, seconds, 1000)


SCENARIOS: Final[dict[str, Callable[[Side, float], Figures]]] = {
    "http1-100b": http1_100b,
    "http1-10kb": http1_10kb,
    "http1-no-keepalive": http1_no_keepalive,
    "h2-100b": h2_100b,
    "grpc-unary": grpc_unary,
    "body-100mb": body_100mb,
    "tcp-throughput": tcp_throughput,
    "idle-1000": idle_1000,
    "endpoints-1000": endpoints_1000,
    "open-loop-200": open_loop_200,
    "open-loop-1000": open_loop_1000,
}
DIRECT: Final = ("open-loop-200", "open-loop-1000")
"""Where the same load without any proxy is measured too: what is slow there already says nothing of a proxy."""
