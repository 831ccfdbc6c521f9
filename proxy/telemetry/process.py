"""What /metrics says of the process itself, read from /proc at each scrape (names as in Prometheus's client
libraries)."""

import os
import resource
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.telemetry.exposition import Family

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STARTED: Final = time.time()


class Use(NamedTuple):
    """What one process uses."""

    cpu_seconds: float
    virtual_bytes: int
    resident_bytes: int
    descriptors: int
    threads: int


def use_of(pid: int | str) -> Use | None:
    """Of a process of the same user; None when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/statm", "rb") as file:
            pages = file.read().split()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    cpu = (int(stat[11]) + int(stat[12])) / _TICKS
    return Use(cpu, int(pages[0]) * _PAGE, int(pages[1]) * _PAGE, descriptors, int(stat[17]))


def families(version: str, suites: str, groups: str, others: Sequence[int] | None = None) -> list[Family]:
    """process_*, proxy_build_info and what TLS is made of.

    Where other processes carry the traffic (`others`) their use is added, and that of those that have ended: it is the
    proxy whose cost is asked for. Memory that they share counts for each.
    """
    own = use_of("self")
    assert own is not None
    uses = [own, *(use for use in map(use_of, others or ()) if use is not None)]
    cpu = sum(use.cpu_seconds for use in uses)
    if others is not None:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu += ended.ru_utime + ended.ru_stime
    virtual, resident, descriptors, threads = (sum(column) for column in list(zip(*uses, strict=True))[1:])
    rows: list[tuple[str, str, str, float]] = [
        ("process_start_time_seconds", "gauge", "When the process started, in Unix seconds.", _STARTED),
        ("process_uptime_seconds_total", "counter", "Seconds since it started.", time.time() - _STARTED),
        ("process_cpu_seconds_total", "counter", "User and system CPU time.", cpu),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory.", virtual),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", resident),
        ("process_open_fds", "gauge", "Open file descriptors.", descriptors),
        ("process_max_fds", "gauge", "Limit of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("process_threads", "gauge", "Threads.", threads),
    ]
    found = [Family(name, kind, sentence, [((), value)]) for name, kind, sentence, value in rows]
    build = Family("proxy_build_info", "gauge", "What is running.", [((("version", version), ("vendor", "tulle")), 1)])
    offered = (("version", "TLSv1.3"), ("suites", suites), ("groups", groups))
    tls = Family("tulle_tls_info", "gauge", "What this proxy offers in TLS.", [(offered, 1)])
    return [*found, build, tls]
