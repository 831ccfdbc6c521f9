"""What holds for every suite: time budgets, and a report of what was skipped and why.

A suite is a folder of `tests/`. Its budget is a promise to whoever waits for `make test`; going over it is said loudly,
but fails nothing, because a busy machine is not a broken program.
"""

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

BUDGETS: Final = {
    "architecture": 10,
    "unit": 90,
    "wire": 30,
    "fuzz": 60,
    "iac": 600,
    "policies": 30,
    "ansible": 1300,
    "release": 330,
    "mesh": 1200,
    "conformance": 200,
    "kube": 1700,
}
"""Seconds for each suite on two cores, the cluster already running; of suites that several processes share
(`tests/run.py`), the sum of theirs."""

EXCUSED: Final = "the pinned release (tree "
"""What a clone without history cannot have, whatever its machine can do: skipped there, loudly, and no failure."""

TESTS: Final = Path(__file__).parent
_spent: dict[str, float] = defaultdict(float)


def pytest_configure() -> None:
    """Take SIGINT, which background jobs of a shell without a user ignore, they and what they start: a run that lasts
    too long is ended by it, and so are programs under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def suite_of(path: Path) -> str:
    """The suite a test file belongs to: its folder, or its name where it lies directly in `tests/`."""
    relative = path.relative_to(TESTS) if path.is_relative_to(TESTS) else path
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem.removeprefix("test_")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI as root everything can run, so a skip there hides something that was not tested: it is a failure."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if not report.skipped or not must_run():
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if EXCUSED not in reason:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped in CI as root: {reason}"


def must_run() -> bool:
    """Whether a skipped test is a failed one."""
    return os.environ.get("CI") == "true" and os.geteuid() == 0


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Every second counts for the suite in which it was spent, fixtures included, in whichever process."""
    _spent[suite_of(TESTS.parent / report.nodeid.partition("::")[0])] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each suite's time against its budget, then what was skipped and why."""
    report = terminalreporter
    report.section("time per suite")
    for suite, seconds in sorted(_spent.items()):
        budget = BUDGETS.get(suite, 300)
        report.write_line(f"{suite:14} {seconds:7.1f} s of {budget} s{'  OVER BUDGET' if seconds > budget else ''}")
    skipped: dict[str, int] = defaultdict(int)
    for found in report.stats.get("skipped", []):
        reason = found.longrepr[2] if isinstance(found.longrepr, tuple) else str(found.longrepr)
        skipped[reason.removeprefix("Skipped: ")] += 1
    report.section("skipped")
    for reason, count in sorted(skipped.items()):
        report.write_line(f"SKIPPED {count}: {reason}")
    if not skipped:
        report.write_line("nothing")
