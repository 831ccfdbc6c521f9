"""`make soak`: both proxies for minutes at half of what they can do, endpoints coming and going. Does I/O.

Ends well when no request failed and neither memory nor descriptors have grown. HTTP/1 and HTTP/2 share the load; every
second the service has other endpoints, never none. What was seen, second by second, is in `build/soak.json`.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.__main__ import end, missing
from tests.bench.measure import LOAD_CORE, memory_mb, read_fortio, read_h2load, run_h2load, run_wrk
from tests.bench.origin import HTTP2_PORT, HTTP_PORT, serve
from tests.bench.root import Runtime, runtime
from tests.bench.sides import pin, settings_for
from tests.kit import tools
from tests.kit.sidecar import ROOT
from tests.kit.topology import Mesh, Pod

OUTPUT: Final = ROOT / "build" / "soak.json"
PROBE_SECONDS: Final = 4.0
CHURN_SECONDS: Final = 0.5
GROWTH_MB: Final = 1.0
"""How much more memory a proxy may hold in the last fifth of the time than in the second."""
GROWTH_SHARE: Final = 0.03
GROWTH_DESCRIPTORS: Final = 16
SERVERS: Final = 3


@dataclass(slots=True)
class Sample:
    """One look at a proxy."""

    at: float
    rss_mb: float
    descriptors: int


def look(pid: int, since: float) -> Sample:
    """Look at a process now."""
    return Sample(time.monotonic() - since, memory_mb(pid), len(os.listdir(f"/proc/{pid}/fd")))


def grown(samples: list[Sample]) -> tuple[float, float]:
    """Growth in MB and in descriptors, from the second fifth of the time to the last: the first is warm-up."""
    fifth = max(len(samples) // 5, 1)
    early, late = samples[fifth : 2 * fifth] or samples[:1], samples[-fifth:]
    memory = statistics.median(each.rss_mb for each in late) - statistics.median(each.rss_mb for each in early)
    files = statistics.median(each.descriptors for each in late) - statistics.median(each.descriptors for each in early)
    return memory, files


def judge(name: str, samples: list[Sample]) -> list[str]:
    """What is wrong with a proxy's course."""
    memory, files = grown(samples)
    found = []
    if memory > GROWTH_MB + GROWTH_SHARE * samples[0].rss_mb:
        found.append(f"{name}: memory grew by {memory:.2f} MB")
    if files > GROWTH_DESCRIPTORS:
        found.append(f"{name}: descriptors grew by {files:g}")
    return found


def pods(mesh: Mesh, source: Runtime, children: list[subprocess.Popen[bytes]]) -> tuple[Pod, list[Pod]]:
    """A caller and servers, each with its proxy."""

    def pod(name: str) -> Pod:
        settings = settings_for(source, mesh, "demo", name)
        return mesh.pod(name, command=source.command(mesh.folder), settings=settings)

    caller, servers = pod("caller"), [pod(f"server-{number}") for number in range(SERVERS)]
    for server in servers:
        serve(server, children)
    pin(*(each.proxy.pid for each in (caller, *servers)))
    return caller, servers


def load(caller: Pod, rates: tuple[float, float], urls: tuple[str, str], seconds: float) -> list[subprocess.Popen[str]]:
    """fortio over HTTP/1 and h2load over HTTP/2, at so many requests/s each."""
    fortio = [
        tools.tool("fortio"), "load", "-quiet", "-nocatchup", "-uniform", f"-qps={rates[0]:g}", "-c=16",
        f"-t={seconds:g}s", "-r=0.0001", "-json=-", urls[0],
    ]  # fmt: skip
    h2load = ["h2load", "-t1", "-c4", "-m32", f"-D{seconds:g}", f"--rps={rates[1] / 4:g}", urls[1]]
    return [
        subprocess.Popen(
            caller.namespace.command("taskset", "-c", LOAD_CORE, *command),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for command in (fortio, h2load)
    ]  # fmt: skip


def soak(mesh: Mesh, source: Runtime, seconds: float, children: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    """Find what they can do, run at half of it, and say what happened."""
    caller, servers = pods(mesh, source, children)
    addresses = [
        mesh.service(name, 80, servers, target=port) for name, port in (("web", HTTP_PORT), ("web2", HTTP2_PORT))
    ]
    urls = (f"http://{addresses[0][0]}/files/1kb", f"http://{addresses[1][0]}/")
    enter = caller.namespace.command()
    most = (run_wrk(enter, urls[0], PROBE_SECONDS, 32).rps, run_h2load(enter, urls[1], PROBE_SECONDS)[1])
    # Half of the machine's capacity in all, so a quarter of each alone.
    rates = (max(most[0] / 4, 20.0), max(most[1] / 4, 20.0))
    print(
        f"soak: saturation {most[0]:.0f} and {most[1]:.0f} requests/s; at {rates[0]:.0f} and {rates[1]:.0f}", flush=True
    )
    running = load(caller, rates, urls, seconds)
    watched = {pod.name: pod for pod in (caller, *servers)}
    samples: dict[str, list[Sample]] = {name: [] for name in watched}
    since, changes, dice = time.monotonic(), 0, random.Random(4)
    try:
        while any(each.poll() is None for each in running) and time.monotonic() - since < seconds + 60:
            for name, port in (("web", HTTP_PORT), ("web2", HTTP2_PORT)):
                mesh.endpoints(name, dice.sample(servers, dice.randint(1, SERVERS)), port)
                changes += 1
            for name, pod in watched.items():
                samples[name].append(look(pod.proxy.pid, since))
            time.sleep(CHURN_SECONDS)
        reports = [each.communicate(timeout=30) for each in running]
    finally:
        for each in running:
            if each.poll() is None:
                each.kill()
                each.wait()
    first = read_fortio(reports[0][0])
    second = read_h2load(reports[1][0])
    faults = [fault for name, course in samples.items() for fault in judge(name, course)] + mesh.complaints()
    faults += [
        f"{name}: {count} requests failed" for name, count in (("HTTP/1", first.errors), ("HTTP/2", second[1])) if count
    ]
    return {
        "seconds": seconds, "proxy": source.description, "saturation_rps": most, "rates": rates,
        "requests": [first.requests, second[0]], "failures": [first.errors, second[1]], "changes": changes,
        "growth_mb": {name: round(grown(course)[0], 3) for name, course in samples.items()},
        "growth_descriptors": {name: grown(course)[1] for name, course in samples.items()},
        "faults": faults,
        "samples": {
            name: [(round(s.at, 1), round(s.rss_mb, 2), s.descriptors) for s in course]
            for name, course in samples.items()
        },
    }  # fmt: skip


def write(path: Path, result: dict[str, Any]) -> None:
    """Keep what was seen."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result) + "\n")


def main() -> int:
    """Exit code 0 when nothing failed or grew, 1 otherwise, 2 when nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES") or 10))
    parser.add_argument("--tree", action="store_true", help="run the proxies from the working tree, not from the image")
    options = parser.parse_args()
    if lacking := missing(options.tree):
        print(f"soak needs {', '.join(lacking)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, end)
    children: list[subprocess.Popen[bytes]] = []
    with runtime(options.tree) as source, Mesh() as mesh:
        try:
            result = soak(mesh, source, options.minutes * 60, children)
        finally:
            for child in children:
                child.kill()
                child.wait()
    write(OUTPUT, result)
    for key in ("proxy", "requests", "failures", "changes", "growth_mb", "growth_descriptors"):
        print(f"soak: {key} {result[key]}")
    print(*(f"soak: FAULT {fault}" for fault in result["faults"]), sep="\n")
    print(f"soak: {'FAILED' if result['faults'] else 'ok'}; every sample in {OUTPUT.relative_to(ROOT)}")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
