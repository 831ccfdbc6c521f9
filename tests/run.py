"""`make test`: the checks, then (as root) the cluster and the mesh, then every suite. Leaves `build/junit-*.xml`.

The suites' own budgets are kept in `conftest.py`; here is the budget of the whole.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.kit.tools import cache_folder

ROOT: Final = Path(__file__).parent.parent
WARM_MINUTES: Final = 68
COLD_MINUTES: Final = 86
"""When the cluster had to be built first."""
ALONE: Final = (
    "conformance/test_hostile_http2.py",
    "conformance/test_hostile_uploads.py",
    *(
        f"mesh/test_{name}.py"
        for name in (
            "balancing", "breaking", "compiled", "control_outage", "hostile_http1", "hostile_tls", "idle", "life",
            "retrying", "scrape", "skew", "storm", "time_limits", "trust_drills", "workers",
        )
    ),
)  # fmt: skip
"""What measures time or memory, or puts a mesh under load, has the machine for itself."""
TESTS: Final = Path(__file__).parent
PAIRED: Final = sorted(
    {str(file.relative_to(TESTS)) for suite in ("mesh", "conformance") for file in (TESTS / suite).glob("test_*.py")}
    - set(ALONE)
)
SUITES: Final = {
    "suites": ("ansible", "iac", "test_architecture.py", "unit", "wire", "fuzz", "policies"),
    "paired": ("mesh/test_metrics.py", *PAIRED),
    "timed": (*ALONE, "release", "kube"),
}
SHARED: Final = ("-n2", "--dist=loadfile", "--no-loadscope-reorder")
"""The steps `suites` and `paired` are shared by two processes, file by file in this order."""
MOST_AGAIN: Final = 5
"""Failures that are run again; more than these are no accident."""
STEP_SECONDS: Final = {"suites": 1500.0, "paired": 1000.0, "timed": 3300.0, "again": 600.0}
"""Each test has its own limit; this one ends a run that hangs between them, while there is time to say so."""
TESTS_FAILED: Final = 1
"""pytest ran to its end and some tests failed; anything else (an interrupt, a broken suite) is not tried again."""
CI_SEED: Final = "20261123"
UP_MINUTES: Final = {"cold": 20.0, "warm": 3.0, "up again": 1.0}
"""`make up` with the local Kubernetes still to be built, with everything in the caches, and with nothing to do. Like
every budget they are said loudly when missed and fail nothing: a busy machine is not a broken program."""


def steps(is_root: bool) -> list[tuple[str, list[str]]]:
    """Name and command of each step."""
    found = [("check", [sys.executable, "-m", "tests.check"])]
    if is_root:
        up = ["make", "--no-print-directory", "up"]
        found += [("up", up), ("up again", up)]
    for name, suites in SUITES.items():
        first = ["--cache-clear"] if name == "suites" else []
        shared = SHARED if name != "timed" else ()
        found.append((name, [*pytest(name), *first, *shared, *(f"tests/{suite}" for suite in suites)]))
    return found


def pytest(name: str) -> list[str]:
    """The command of a step that runs tests."""
    return [sys.executable, "-m", "pytest", "-q", f"--junitxml=build/junit-{name}.xml"]


def run(name: str, command: list[str]) -> int:
    """One step's exit code; a step that does not end in its time is interrupted, then killed, and has failed."""
    limit = STEP_SECONDS.get(name)
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            print(f"test: {name} did not end within {limit:.0f} s; it is ended here", flush=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        return 1


def last_failed() -> list[str]:
    """The tests that pytest remembers as failed."""
    path = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
    return sorted(json.loads(path.read_text())) if path.exists() else []


def run_again(results: list[tuple[str, int, float]]) -> list[str]:
    """Give the few tests that failed a second run of their own, and name those that need one.

    Tests of time and load share two cores with whatever else the machine does. One that fails twice is a failure; one
    that passes alone is unstable: these are returned, to be named every time, looked at and not forgotten.
    """
    failed = last_failed()
    ended = {name: code for name, code, _ in results if name in SUITES}
    if set(ended.values()) - {0, TESTS_FAILED} or not 0 < len(failed) <= MOST_AGAIN:
        return []
    started = time.monotonic()
    code = run("again", [*pytest("again"), "--last-failed", "tests"])
    if code == 0:
        results[:] = [(name, 0 if name in SUITES else code, seconds) for name, code, seconds in results]
    results.append(("again", code, time.monotonic() - started))
    still = last_failed() if code else []
    return [name for name in failed if name not in still]


def settle_seed() -> None:
    """Made-up cases are new ones in every run, but the same in CI: there a failure has to be about the change."""
    if os.environ.get("CI"):
        os.environ.setdefault("TULLE_SEED", CI_SEED)
        print(f"test: TULLE_SEED={os.environ['TULLE_SEED']}", flush=True)


def main() -> int:
    """Run all steps, also after one that failed: each failure is news of its own."""
    (ROOT / "build").mkdir(exist_ok=True)
    settle_seed()
    is_root = os.geteuid() == 0
    if not is_root:
        print("test: not root, so there is no local cluster: end-to-end tests will be skipped", flush=True)
    is_cold = not any(cache_folder().glob("kube/*/kube"))
    results: list[tuple[str, int, float]] = []
    begun = time.monotonic()
    for name, command in steps(is_root):
        started = time.monotonic()
        code = run(name, command)
        results.append((name, code, time.monotonic() - started))
    unstable = run_again(results)
    print()
    for name, code, seconds in results:
        print(f"test: {name:<8} {'ok' if code == 0 else 'FAILED':<7} {seconds / 60:5.1f} min")
    minutes = (time.monotonic() - begun) / 60
    for name, _, seconds in results:
        limit = UP_MINUTES.get(("cold" if is_cold else "warm") if name == "up" else name)
        if limit and seconds > limit * 60:
            print(f"test: OVER BUDGET: {name} took {seconds / 60:.1f} of {limit:g} minutes")
    budget = COLD_MINUTES if is_cold else WARM_MINUTES
    print(f"test: {minutes:.1f} of {budget} minutes; results in build/junit-*.xml")
    if minutes > budget:
        print("test: OVER BUDGET")
    # Last of all, where nobody can miss it: a test that passes every other time proves little.
    for name in unstable:
        print(f"test: !!! UNSTABLE: {name} failed, then passed on its own; mend the test or what it tests")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
