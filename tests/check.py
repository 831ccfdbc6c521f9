"""`make check`: every static check, or those named, each with its time. Exits with 1 if any found something."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

BUDGET: Final = 120.0
"""Seconds for all of them: more, and people stop running it."""
BIN: Final = Path(sys.executable).parent
YAML: Final = ("ansible", "policies", "tests/bench/envoy", *(str(path) for path in sorted(Path().glob("Pulumi*.yaml"))))
SHELL_FILES: Final = (".ci/run", ".ci/release/install.sh", "ansible/files/packages.sh")

CHECKS: Final = (
    ("ruff", ["ruff", "check", "--quiet", "."]),
    ("mypy", ["mypy", "--no-error-summary"]),
    ("mypy-keeper", ["mypy", "--no-error-summary", "ansible/roles/cluster/files/keeper"]),
    ("import-linter", ["lint-imports", "--no-cache"]),
    ("cython-lint", ["cython-lint", "proxy", "tests"]),
    ("yamllint", ["yamllint", "--strict", "-c", "ansible/.yamllint", *YAML]),
    ("ansible-lint", ["ansible-lint", "--offline", "-q", "--profile", "production", "."]),
    ("shellcheck", ["shellcheck", *SHELL_FILES]),
    ("architecture", ["python", "-m", "pytest", "-q", "--no-header", "tests/test_architecture.py"]),
)
"""Name and command of each check; commands come from the environment's own bin folder."""


def main() -> int:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}
    # The collection finds its own modules through a link to itself.
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(Path("ansible/playbooks/collections").resolve())
    failed = []
    began = time.monotonic()
    wanted = sys.argv[1:] or [name for name, _ in CHECKS]
    for name, command in (each for each in CHECKS if each[0] in wanted):
        started = time.monotonic()
        folder = "ansible" if name == "ansible-lint" else "."
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        verdict = "ok" if run.returncode == 0 else "FAILED"
        print(f"check: {name:<14} {verdict:<7} {time.monotonic() - started:5.1f} s", flush=True)
        if run.returncode != 0:
            failed.append(name)
            print(run.stdout + run.stderr)
    total = time.monotonic() - began
    print(f"check: {'all' if not failed else 'failed: ' + ', '.join(failed)} in {total:.0f} s of {BUDGET:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
