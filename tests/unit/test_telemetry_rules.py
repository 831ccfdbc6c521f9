"""The alerts about certificates: what is said at which day, and only once."""

import json
from typing import Any

from components.telemetry.scraping import CALLS, rules


def alerts() -> dict[tuple[str, str], dict[str, Any]]:
    groups = json.loads(rules("10s"))["groups"]
    found = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return {(rule["alert"], rule["labels"]["severity"]): rule for rule in found}


def test_people_are_called_at_sixty_thirty_and_seven_days_ever_louder() -> None:
    found = alerts()
    for name in ("TulleIssuerExpiring", "TulleAnchorExpiring"):
        for days, severity in CALLS:
            rule = found[name, severity]
            assert f"within {days} days" in rule["annotations"]["summary"]
            assert f"< {days * 86400}" in rule["expr"]
    assert [days for days, _ in CALLS] == [60, 30, 7]
    assert {severity for _, severity in CALLS} == {"info", "warning", "critical"}


def test_a_louder_call_ends_the_quieter_one() -> None:
    found = alerts()
    info = found["TulleAnchorExpiring", "info"]["expr"]
    assert "unless" in info
    assert f"< {30 * 86400}" in info
    assert "unless" not in found["TulleAnchorExpiring", "critical"]["expr"]


def test_a_short_lived_issuer_is_called_late_by_its_own_life() -> None:
    found = alerts()
    assert "0.3 * tulle_identity_issuer_lifetime_seconds" in found["TulleIssuerNotRenewed", "warning"]["expr"]
    assert f"lifetime_seconds > 3 * {7 * 86400}" in found["TulleIssuerExpiring", "critical"]["expr"]


def test_summaries_keep_their_templates() -> None:
    found = alerts()
    assert "{{ $labels.anchor }}" in found["TulleAnchorExpiring", "info"]["annotations"]["summary"]
    assert "{{ $labels.pod }}" in found["TulleCertificateExpiring", "warning"]["annotations"]["summary"]
