"""A scrape of very many series delays nobody: a steady client's longest wait, with and without scrapes beside it."""

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import slowness

SERIES = 10_000
CPU_SECONDS = 0.2
"""Of one scrape."""
PORTS = 170
LONGEST_WAIT = 0.010
"""Seconds that a request may wait for a scrape."""
ROUNDS = 8
SECONDS = 0.8
"""Of one round."""


@contextlib.contextmanager
def ports(pod: Pod, first: int, number: int) -> Iterator[None]:
    """An application on many ports: one thread answers them all."""
    selector = selectors.DefaultSelector()
    opened: list[socket.socket] = []
    for port in range(first, first + number):
        opened.append(pod.listen(port))
        selector.register(opened[-1], selectors.EVENT_READ, True)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for key, _ in selector.select(0.1):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if key.data:
                    connection = ready.accept()[0]
                    opened.append(connection)
                    selector.register(connection, selectors.EVENT_READ, False)
                elif not ready.recv(65536):
                    selector.unregister(ready)
                else:
                    ready.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        for each in opened:
            each.close()
        selector.close()


def waits(pod: Pod, connection: socket.socket, seconds: float) -> tuple[list[float], list[float]]:
    """Of each request of a steady client: how long it took, and how long the proxy computed meanwhile.

    The second is what a request can have waited for the proxy's other work. It holds on a machine that others keep
    busy too, where the first says as much of them.
    """
    taken, worked = [], []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        before = cpu_seconds(pod)
        connection.sendall(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        worked.append(cpu_seconds(pod) - before)
        taken.append(time.monotonic() - begun)
        time.sleep(0.001)
    return taken, worked


@contextlib.contextmanager
def apart(pod: Pod) -> Iterator[None]:
    """The proxy on one processor, client, application and scraper on another.

    Sharing one, they wait for a slice of it each, twice a request, while the proxy goes on with its scrape: it would
    then be the kernel's scheduler that holds up requests.
    """
    ours, *others = sorted(before := os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(pod.proxy.pid, others[:1])
        os.sched_setaffinity(0, {ours})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pod: Pod) -> float:
    """What the proxy's loop has used of a processor."""
    pid = pod.proxy.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


SCRAPER = """
import select, socket, sys
count = 0
while not select.select([sys.stdin], [], [], 0.03)[0]:
    with socket.create_connection(("127.0.0.1", 4191)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\\r\\nhost: admin\\r\\nconnection: close\\r\\n\\r\\n")
        end = b""
        while chunk := connection.recv(1 << 20):
            end = (end + chunk)[-6:]
    assert end == b"# EOF\\n"
    count += 1
print(count)
"""
"""A process of its own: in the test's, reading the answers would keep the steady client waiting itself. With pauses: a
process that never sleeps waits for the processor itself on a busy machine.
"""


@contextlib.contextmanager
def scraped(pod: Pod) -> Iterator[Callable[[], int]]:
    """Scrape again and again until the number of scrapes is asked for."""
    scraper = subprocess.Popen(
        pod.namespace.command(sys.executable, "-c", SCRAPER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield lambda: int(scraper.communicate("enough\n", timeout=20)[0])
    finally:
        scraper.kill()
        scraper.wait()


def test_no_request_waits_for_a_scrape_of_ten_thousand_series(mesh: Mesh, outsider: Pod) -> None:
    pod = mesh.pod("crowded")
    first = 31_000
    with apart(pod), ports(pod, first, PORTS):
        for port in range(first, first + PORTS):
            assert outsider.get((pod.ip, port)).status == 200
        text = pod.proxy.get("/metrics").body
        assert sum(not line.startswith(b"#") for line in text.splitlines()) >= SERIES
        longest = []
        with outsider.connect((pod.ip, first)) as connection:
            waits(pod, connection, 0.2)
            for _ in range(ROUNDS):
                alone, _ = waits(pod, connection, SECONDS)
                with scraped(pod) as scrapes:
                    used = cpu_seconds(pod)
                    beside, worked = waits(pod, connection, SECONDS)
                    each = (cpu_seconds(pod) - used) / (number := scrapes())
                print(
                    f"{number} scrapes of {each * 1e3:.0f} ms of CPU with {len(beside)} requests: longest "
                    f"{max(beside) * 1e3:.1f} ms, p99 {p99(beside) * 1e3:.1f} (alone {max(alone) * 1e3:.1f}, "
                    f"{p99(alone) * 1e3:.1f}); the proxy computed {max(worked) * 1e3:.1f}, p99 {p99(worked) * 1e3:.1f}"
                )
                assert number >= 2, "nothing was scraped meanwhile"
                assert each < CPU_SECONDS
                longest.append(max(worked))
                # A client that gets no processor lets the proxy compute on; a scrape that holds up does so every time.
                if longest[-1] < LONGEST_WAIT:
                    return
    assert min(longest) < LONGEST_WAIT * slowness(), f"a scrape holds up requests, by so many seconds: {longest}"


def p99(taken: list[float]) -> float:
    """All but the longest of a hundred."""
    return sorted(taken)[len(taken) * 99 // 100]
