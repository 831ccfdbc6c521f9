"""`make sanitize`: the compiled proxy under AddressSanitizer and UndefinedBehaviorSanitizer; fails on any report.

Compiled modules are built a second time (`tests/kit/instrumented.py`), then the suites that drive them run on that
build: the codecs, the fuzz targets, compiled values, and conversations through real proxy processes.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.kit import instrumented

FLAGS: Final = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-O1", "-g"]
SUITES: Final = (
    ("values", ["tests/wire", "tests/fuzz/test_targets.py", *(f"tests/unit/test_{name}.py" for name in (
        "admin", "breaker", "control_client", "control_destination", "control_identity", "counters", "exposition",
        "proxy_log", "reactor", "registry", "retrying",
    ))]),
    ("conversations", [f"tests/mesh/test_{name}.py" for name in (
        "http1", "http2", "opaque", "refusals", "control_transport",
    )]),
)  # fmt: skip
"""The second needs root: it makes network namespaces."""
NOT_HERE: Final = "ten_thousand"
"""A bound on time, which code under sanitizers does not keep."""


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


def main() -> int:
    """Build, run, and read what was reported."""
    wanted = sys.argv[1:] or [name for name, _ in SUITES]
    folder = instrumented.ROOT / "build" / "sanitize"
    began = time.monotonic()
    tree = instrumented.build("sanitize", FLAGS, os.environ.get("MODULES") or "proxy.")
    print(f"sanitize: built in {time.monotonic() - began:.0f} s", flush=True)
    reports = folder / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    reports.chmod(0o777)  # proxies run as another user
    failed = []
    for name, paths in (each for each in SUITES if each[0] in wanted):
        if name == "conversations" and os.geteuid() != 0:
            print("sanitize: not root: no conversations", flush=True)
            continue
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"not {NOT_HERE}", *paths]
        code = subprocess.run(command, cwd=tree, env=environment(reports), check=False).returncode
        print(f"sanitize: {name} {'ok' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
        failed += [name] if code else []
    found = sorted(reports.iterdir())
    for path in found:
        print(f"--- {path}\n{path.read_text(errors='replace')}")
    print(f"sanitize: {len(found)} reports in {time.monotonic() - began:.0f} s")
    return 1 if failed or found else 0


if __name__ == "__main__":
    sys.exit(main())
