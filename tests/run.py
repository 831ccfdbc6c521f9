"""`make test`: the checks, then (as root) the cluster and the mesh, then every suite. Leaves `build/junit.xml`.

The suites' own budgets are kept in `conftest.py`; here is the budget of the whole.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
WARM_MINUTES: Final = 45
COLD_MINUTES: Final = 70
"""When the cluster had to be built first."""
SUITES: Final = ("test_architecture.py", "unit", "wire", "iac", "policies", "ansible", "web", "mesh", "kube")
"""In the order in which they run: what is quick and fails often first, what needs the cluster last."""
WARM_UP_MINUTES: Final = 3.0
"""`make up` with everything in the caches takes less."""


def steps(is_root: bool, existing: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Name and command of each step."""
    pytest = [sys.executable, "-m", "pytest", "-q", "--junitxml=build/junit.xml"]
    found = [("check", [sys.executable, "-m", "tests.check"])]
    if is_root:
        found.append(("up", ["make", "--no-print-directory", "up"]))
    return [*found, ("suites", [*pytest, *(f"tests/{suite}" for suite in existing)])]


def main() -> int:
    """Run all steps, also after one that failed: each failure is news of its own."""
    (ROOT / "build").mkdir(exist_ok=True)
    is_root = os.geteuid() == 0
    if not is_root:
        print("test: not root, so there is no local cluster: end-to-end tests will be skipped", flush=True)
    results, begun = [], time.monotonic()
    for name, command in steps(is_root, tuple(suite for suite in SUITES if (ROOT / "tests" / suite).exists())):
        started = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        results.append((name, code, time.monotonic() - started))
    print()
    for name, code, seconds in results:
        print(f"test: {name:<8} {'ok' if code == 0 else 'FAILED':<7} {seconds / 60:5.1f} min")
    minutes = (time.monotonic() - begun) / 60
    up = sum(seconds for name, _, seconds in results if name == "up") / 60
    budget = COLD_MINUTES if up > WARM_UP_MINUTES else WARM_MINUTES
    print(f"test: {minutes:.1f} of {budget} minutes; results in build/junit.xml")
    failed = any(code for _, code, _ in results)
    if minutes > budget:
        print("test: OVER BUDGET")
        failed = failed or os.environ.get("CI") == "true"
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
