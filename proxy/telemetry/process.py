"""What /metrics says of the process itself, read from /proc at each scrape (names as in Prometheus's client
libraries)."""

import os
import resource
import time
from typing import Final

from proxy.telemetry.exposition import Family

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STARTED: Final = time.time()


def families(version: str, suites: str, groups: str) -> list[Family]:
    """process_*, proxy_build_info and what TLS is made of."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read().rpartition(b")")[2].split()
    with open("/proc/self/statm", "rb") as file:
        pages = file.read().split()
    cpu = (int(stat[11]) + int(stat[12])) / _TICKS
    rows: list[tuple[str, str, str, float]] = [
        ("process_start_time_seconds", "gauge", "When the process started, in Unix seconds.", _STARTED),
        ("process_uptime_seconds_total", "counter", "Seconds since it started.", time.time() - _STARTED),
        ("process_cpu_seconds_total", "counter", "User and system CPU time.", cpu),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory.", int(pages[0]) * _PAGE),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", int(pages[1]) * _PAGE),
        ("process_open_fds", "gauge", "Open file descriptors.", len(os.listdir("/proc/self/fd"))),
        ("process_max_fds", "gauge", "Limit of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("process_threads", "gauge", "Threads.", int(stat[17])),
    ]
    found = [Family(name, kind, sentence, [((), value)]) for name, kind, sentence, value in rows]
    build = Family("proxy_build_info", "gauge", "What is running.", [((("version", version), ("vendor", "tulle")), 1)])
    offered = (("version", "TLSv1.3"), ("suites", suites), ("groups", groups))
    tls = Family("tulle_tls_info", "gauge", "What this proxy offers in TLS.", [(offered, 1)])
    return [*found, build, tls]
