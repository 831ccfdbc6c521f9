"""h2spec against the inbound server of a real proxy: all of it passes but what RFC 9113 ended."""

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

import pytest

from tests.kit import tools
from tests.kit.http2_ends import Origin
from tests.kit.topology import Pod

PORT: Final = 18_200
CASES: Final = 146
"""How many the suite has: fewer would mean that it was not run."""
ENDED: Final[dict[str, str]] = {}
"""Cases of RFC 7540 alone, each with the section of RFC 9113 that ends it. A list that is longer than what fails, or
shorter, fails the test."""


@pytest.fixture(scope="module")
def report(outsider: Pod, web: Pod, go_tools: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each case: an empty text for one that passed."""
    path: Path = tmp_path_factory.mktemp("h2spec") / "report.xml"
    command = [tools.tool("h2spec"), "-h", web.ip, "-p", str(PORT), "-o", "3", "-S", "-j", str(path)]
    with Origin(web, PORT) as origin:
        done = subprocess.run(outsider.namespace.command(*command), capture_output=True, text=True, timeout=150)
    assert path.exists(), done.stderr + done.stdout
    # One case is no HTTP/2 at all: it is carried as opaque, and so the application's to refuse.
    faults = [fault for fault in origin.faults if "preamble" not in fault]
    assert not faults, f"what was forwarded broke a rule: {faults}"
    return read(path)


def read(path: Path) -> dict[str, str]:
    """A report of h2spec's, case by case."""
    found: dict[str, str] = {}
    for suite in ET.parse(path).getroot().iter("testsuite"):
        for number, case in enumerate(suite.iter("testcase"), 1):
            bad = [each for each in case if each.tag in ("failure", "error", "skipped")]
            found[f"{case.get('package')}/{number}: {case.get('classname')}"] = "".join(
                f"{each.tag}: {each.text}" for each in bad
            )
    return found


def test_all_of_it_was_run(report: dict[str, str]) -> None:
    assert len(report) >= CASES, len(report)


def test_what_fails_is_what_rfc_9113_ended(report: dict[str, str]) -> None:
    failed = {case: why for case, why in report.items() if why}
    assert set(failed) == set(ENDED), "\n".join(
        [f"FAILED {case}\n  {why}" for case, why in failed.items() if case not in ENDED]
        + [f"PASSED, though listed: {case}" for case in ENDED if case not in failed]
    )


def test_the_proxy_serves_on(report: dict[str, str], outsider: Pod, web: Pod) -> None:
    assert web.proxy.get("/ready").status == 200
