"""The alerts about certificates as Prometheus evaluates them: `promtool test rules` on the very rules that the mesh
deploys. Who is called, at which day, how loudly, and when nobody is.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.telemetry.scraping import rules
from tests.kit import debian
from tests.kit.tools import ToolError

DAY = 86400
LOOKED_AT = "10m"
"""Of Prometheus' time, which begins at 0: every end below is that many seconds after it."""
SECONDS = 600
ISSUER, LIFETIME = "tulle_identity_issuer_expiry_timestamp_seconds", "tulle_identity_issuer_lifetime_seconds"
ANCHOR = "tulle_identity_anchor_expiry_timestamp_seconds"
WEBHOOK = "tulle_injector_webhook_expiry_timestamp_seconds"
LEAF, REFRESHED = (f"control_identity_cert_{what}_timestamp_seconds" for what in ("expiration", "refresh"))
NOBODY: Mapping[str, str] = {}
YEAR = 365 * DAY


@dataclass(frozen=True)
class Case:
    """Series, and the alerts that fire by name and severity."""

    series: Mapping[str, float]
    calls: Mapping[str, str]


def issuer(days: float, life: float = YEAR) -> dict[str, float]:
    """An issuer with so many days left."""
    return {ISSUER: SECONDS + days * DAY, LIFETIME: life}


def anchor(days: float) -> dict[str, float]:
    return {f'{ANCHOR}{{anchor="a1b2c3"}}': SECONDS + days * DAY}


def leaf(left: float, life: float = DAY) -> dict[str, float]:
    """A leaf with this share of its life left."""
    end = SECONDS + left * life
    return {LEAF: end, REFRESHED: end - life}


CASES = {
    "an issuer in its first two thirds": Case(issuer(200), NOBODY),
    "one that the keeper should have renewed": Case(issuer(100), {"TulleIssuerNotRenewed": "warning"}),
    "an issuer's 61st day": Case(issuer(61, life=10 * YEAR), {"TulleIssuerNotRenewed": "warning"}),
    "an issuer's 59th day": Case(issuer(59), {"TulleIssuerNotRenewed": "warning", "TulleIssuerExpiring": "info"}),
    "an issuer's 29th day": Case(issuer(29), {"TulleIssuerNotRenewed": "warning", "TulleIssuerExpiring": "warning"}),
    "an issuer's 6th day": Case(issuer(6), {"TulleIssuerNotRenewed": "warning", "TulleIssuerExpiring": "critical"}),
    "a cert-manager issuer of two days": Case(issuer(1.5, life=2 * DAY), NOBODY),
    "one of them that is late": Case(issuer(0.5, life=2 * DAY), {"TulleIssuerNotRenewed": "warning"}),
    "no issuer": Case({ISSUER: 0}, {"TulleIssuerMissing": "warning"}),
    "an anchor's 61st day": Case(anchor(61), NOBODY),
    "an anchor's 59th day": Case(anchor(59), {"TulleAnchorExpiring": "info"}),
    "an anchor's 29th day": Case(anchor(29), {"TulleAnchorExpiring": "warning"}),
    "an anchor's 6th day": Case(anchor(6), {"TulleAnchorExpiring": "critical"}),
    "an anchor that has ended": Case(anchor(-1), {"TulleAnchorExpiring": "critical"}),
    "a webhook's 8th day": Case({WEBHOOK: SECONDS + 8 * DAY}, NOBODY),
    "a webhook's 6th day": Case({WEBHOOK: SECONDS + 6 * DAY}, {"TulleWebhookCertificateExpiring": "warning"}),
    "a leaf that is due": Case(leaf(0.3), NOBODY),
    "a leaf that is late": Case(leaf(0.14), {"TulleCertificateExpiring": "warning"}),
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Of the Debian package that the mesh's own Prometheus is built from."""
    try:
        return debian.program("prometheus", "usr/bin/promtool")
    except (ToolError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"promtool cannot be had: {error}")


def test_prometheus_calls_people_at_sixty_thirty_and_seven_days(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(rules("1m"))
    names = sorted({rule["alert"] for group in json.loads(rules("1m"))["groups"] for rule in group["rules"]
                    if "alert" in rule} - {"TulleProxyUnreachable"})  # fmt: skip
    tests = [as_test(case, names) for case in CASES.values()]
    document = {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.json").write_text(json.dumps(document))
    done = subprocess.run(
        [promtool, "test", "rules", "test.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "TZ": "UTC"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def as_test(case: Case, names: list[str]) -> dict[str, Any]:
    """One case in promtool's words: of every alert it is said whether it fires."""
    summaries = {
        (rule["alert"], rule["labels"]["severity"]): rule["annotations"]["summary"]
        for group in json.loads(rules("1m"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    known = {"namespace": "tulle", "pod": "identity-1"}

    def labelled(series: str) -> str:
        family, _, own = series.partition("{")
        own = own.rstrip("}")
        return f'{family}{{namespace="tulle",pod="identity-1"{"," if own else ""}{own}}}'

    expected = []
    for name in names:
        fires = []
        if name in case.calls:
            severity = case.calls[name]
            own = {"anchor": "a1b2c3"} if name == "TulleAnchorExpiring" else {}
            summary = summaries[name, severity]
            for label, value in {**known, **own}.items():
                summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
            fires = [{"exp_labels": {"severity": severity, **known, **own}, "exp_annotations": {"summary": summary}}]
        expected.append({"alertname": name, "eval_time": LOOKED_AT, "exp_alerts": fires})
    series = [{"series": labelled(each), "values": f"{value:.0f}x20"} for each, value in case.series.items()]
    return {"interval": "1m", "input_series": series, "alert_rule_test": expected}
