"""What is measured of a process and of a load, and medians over rounds."""

import json
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


def read_h2load(text: str) -> tuple[int, int]:
    """Requests done and requests that failed, of h2load's report. What was under way at the end of the time is
    neither."""
    found = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text, re.MULTILINE)
    statuses = re.search(r"^status codes: (\d+) 2xx", text, re.MULTILINE)
    assert found is not None, text
    assert statuses is not None, text
    done, succeeded, failed, errored = (int(each) for each in found.groups())
    return done, done - succeeded + failed + errored


def run_h2load(enter: list[str], url: str, seconds: float, *arguments: str) -> tuple[int, float, int]:
    """One run of h2load, 4 connections x 32 streams, inside a namespace on the load's core: requests, requests/s,
    failures."""
    h2load = ["h2load", "-t1", "-c4", "-m32", f"-D{seconds:g}", *arguments, url]
    command = [*enter, "taskset", "-c", LOAD_CORE, *h2load]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"h2load: {done.stdout}{done.stderr}")
    requests, failures = read_h2load(done.stdout)
    return requests, requests / seconds, failures


def read_fortio(text: str) -> Load:
    """Read fortio's report, which is JSON."""
    report = json.loads(text)
    latency = report["DurationHistogram"]
    at = {each["Percentile"]: each["Value"] * 1000 for each in latency["Percentiles"] or ()}
    codes = {int(code): count for code, count in report["RetCodes"].items()}
    count = sum(codes.values())
    good = codes.get(200, 0)
    return Load(count, report["ActualQPS"], at.get(50, 0.0), at.get(99, 0.0), count - good)


def run_fortio(program: str, enter: list[str], url: str, seconds: float, rate: float, connections: int) -> Load:
    """An open loop at a rate in requests/s: a request that is late does not make the next one late."""
    fortio = [
        program, "load", "-quiet", "-nocatchup", "-uniform", "-jitter", f"-qps={rate:g}", f"-c={connections}",
        f"-t={seconds:g}s", "-p=50,90,99,99.9", "-r=0.0001", "-json=-", url,
    ]  # fmt: skip
    command = [*enter, "taskset", "-c", LOAD_CORE, *fortio]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"fortio: {done.stdout}{done.stderr}")
    return read_fortio(done.stdout)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over rounds."""
    return {name: round(statistics.median(each[name] for each in rounds), 4) for name in rounds[0]}


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Ours by theirs, of what both have."""
    return {name: round(ours[name] / theirs[name], 3) for name in ours if theirs.get(name)}
