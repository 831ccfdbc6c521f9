"""`make sanitize`: the compiled proxy under AddressSanitizer and UndefinedBehaviorSanitizer; fails on any report.

Compiled modules are built a second time (`tests/kit/instrumented.py`), then the suites that drive them run on that
build: the codecs, the fuzz targets, compiled values, and conversations through real proxy processes. Each suite is a
process of its own, so that one that hangs or dies takes no other along; `python -m tests.sanitize http1 http2` runs
those alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.kit import instrumented

FLAGS: Final = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-O1", "-g"]
VALUES: Final = "values"
SUITES: Final = {
    VALUES: ["tests/wire", "tests/fuzz/test_targets.py", *(f"tests/unit/test_{name}.py" for name in (
        "admin", "breaker", "control_client", "control_destination", "control_identity", "counters", "exposition",
        "proxy_log", "reactor", "registry", "retrying",
    ))],
    **{name: [f"tests/mesh/test_{name}.py"] for name in ("http1", "http2", "opaque", "refusals", "control_transport")},
}  # fmt: skip
"""All but the first are conversations, which need root: they are held in network namespaces."""
SUITE_SECONDS: Final = 1200.0
"""What a suite may take: sanitized code is several times slower, and so is everything beside it."""
TEST_SECONDS: Final = 180
NOT_HERE: Final = ("ten_thousand", "rests_holds_the_writer_back")
"""Bounds on time and on memory, which code under sanitizers does not keep: freed memory is held to be watched."""


def environment(reports: Path) -> dict[str, str]:
    """What the tests and every proxy that they start inherit. Reports go to files: a child's stderr is often a pipe."""
    said = {"log_path": reports / "report", "halt_on_error": 0, "print_stacktrace": 1}
    address = {**said, "halt_on_error": 1, "detect_leaks": 0}
    return {
        **instrumented.environment(FLAGS),
        # The interpreter is not instrumented: the runtime has to be there before it, and its own allocator would hide
        # what happens inside a block of it.
        "LD_PRELOAD": " ".join(map(library, ("libasan.so", "libubsan.so"))),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": ":".join(f"{key}={value}" for key, value in address.items()),
        "UBSAN_OPTIONS": ":".join(f"{key}={value}" for key, value in said.items()),
        "TULLE_EXAMPLES": "100",
        "TULLE_ROUNDS": "300",
    }


def library(name: str) -> str:
    """Where the compiler keeps a library."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(found.stdout.strip()).resolve())


@dataclass(slots=True)
class Result:
    """How a suite went."""

    tests: int = 0
    failed: int = 0
    ended: str = ""
    """Why it says nothing, if it does not."""
    names: list[str] = field(default_factory=list)
    """Of the tests that failed."""

    def __str__(self) -> str:
        return self.ended or ", ".join((f"{self.tests - self.failed} passed", f"{self.failed} failed", *self.names))


def run(name: str, tree: Path, environ: dict[str, str]) -> Result:
    """One suite on the sanitized build."""
    told = tree.parent / f"{name}.xml"
    told.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={told}",
        f"--timeout={TEST_SECONDS}", "-k", " and ".join(f"not {each}" for each in NOT_HERE), *SUITES[name],
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=tree, env=environ) as process:
        try:
            code = process.wait(SUITE_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it takes down what it has made
            try:
                process.wait(TEST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            return Result(ended=f"DID NOT END in {SUITE_SECONDS:g} s")
    if not told.exists():
        return Result(ended=f"DIED with code {code}")
    suite = next(ElementTree.parse(told).iter("testsuite"))
    wrong = {
        case.get("name", ""): None
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    }
    ran = int(suite.get("tests", "0")) - int(suite.get("skipped", "0"))
    return Result(ran, len(wrong), names=list(wrong))


def main() -> int:
    """Build, run, and read what was reported."""
    wanted = sys.argv[1:] or list(SUITES)
    if unknown := set(wanted) - set(SUITES):
        print(f"sanitize: {', '.join(sorted(unknown))}: no such suite; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    folder = instrumented.ROOT / "build" / "sanitize"
    began = time.monotonic()
    tree = instrumented.build("sanitize", FLAGS, os.environ.get("MODULES") or "proxy.")
    print(f"sanitize: built in {time.monotonic() - began:.0f} s", flush=True)
    reports = folder / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    reports.chmod(0o777)  # proxies run as another user
    results: dict[str, Result] = {}
    for name in wanted:
        if name != VALUES and os.geteuid() != 0:
            print(f"sanitize: {name}: not root: no conversations", flush=True)
            continue
        started = time.monotonic()
        results[name] = run(name, tree, environment(reports))
        print(f"sanitize: {name}: {results[name]} in {time.monotonic() - started:.0f} s", flush=True)
    found = sorted(reports.iterdir())
    for path in found:
        print(f"--- {path}\n{path.read_text(errors='replace')}")
    bad = [name for name, result in results.items() if result.failed or result.ended or not result.tests]
    print(
        f"sanitize: {sum(result.tests for result in results.values())} tests in {len(results)} suites, "
        f"{'FAILED: ' + ', '.join(bad) if bad else 'all passed'}; {len(found) or 'no'} reports; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if bad or found else 0


if __name__ == "__main__":
    sys.exit(main())
