"""What is measured of a process and of a load, and medians over rounds."""

import os
import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PROXY_CORE: Final = "0"
LOAD_CORE: Final = "1"
UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int, kind: str = "VmRSS") -> float:
    """Resident memory in MB (10^6 bytes)."""
    found = re.search(rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk says of a run."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    errors: int


def milliseconds(text: str) -> float:
    """A time as wrk writes it."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    assert found is not None, text
    return float(found[1]) * UNITS[found[2]]


def read_wrk(text: str) -> Load:
    """Read wrk's report."""

    def one(pattern: str) -> str:
        found = re.search(pattern, text, re.MULTILINE)
        assert found is not None, text
        return found[1]

    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Load(
        int(one(r"^\s+(\d+) requests in")),
        float(one(r"^Requests/sec:\s+([\d.]+)")),
        milliseconds(one(r"^\s+50%\s+(\S+)")),
        milliseconds(one(r"^\s+99%\s+(\S+)")),
        errors + (int(failed[1]) if failed else 0),
    )


def run_wrk(enter: list[str], url: str, seconds: float, connections: int, *headers: str) -> Load:
    """One run of wrk inside a namespace, on the load's core."""
    fields = [part for header in headers for part in ("-H", header)]
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *fields, url]
    command = [*enter, "taskset", "-c", LOAD_CORE, *wrk]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    return read_wrk(done.stdout)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over rounds."""
    return {name: round(statistics.median(each[name] for each in rounds), 4) for name in rounds[0]}


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Ours by theirs, of what both have."""
    return {name: round(ours[name] / theirs[name], 3) for name in ours if theirs.get(name)}
