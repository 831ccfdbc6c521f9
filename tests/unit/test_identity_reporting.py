"""Identity's record of what proxies report: merged between replicas, tried again, never in a request's way."""

from components.identity.reporting import Reporting
from components.trust import reports
from components.trust.reports import Report
from tests.kit.fake_api import FakeApi

NOW = 1_000.0
ONE, OTHER = Report("b" * 16, "a" * 16, 2_000), Report("c" * 16, "a" * 16, 3_000)


def replica(api: FakeApi) -> Reporting:
    return Reporting(api.kube(), "tulle", lambda: NOW)


def stored(api: FakeApi) -> dict[str, Report]:
    return reports.decode(api.get("configmaps", reports.NAME, "tulle"))


async def test_what_is_heard_is_written_once() -> None:
    api = FakeApi()
    identity = replica(api)
    await identity.flush()
    assert api.requests == [], "nothing heard, nothing asked"
    identity.heard("1", ONE)
    await identity.flush()
    assert stored(api) == {"1": ONE}
    api.requests.clear()
    await identity.flush()
    assert api.requests == []


async def test_replicas_add_to_one_another() -> None:
    api = FakeApi()
    for uid, report in (("1", ONE), ("2", OTHER)):
        identity = replica(api)
        identity.heard(uid, report)
        await identity.flush()
    assert stored(api) == {"1": ONE, "2": OTHER}


async def test_a_failed_write_is_tried_again() -> None:
    api = FakeApi()
    identity = replica(api)
    identity.heard("1", ONE)
    for code in (500, 403, 409):
        api.fail = [code]
        await identity.flush()
        assert stored(api) == {}
    await identity.flush()
    assert stored(api) == {"1": ONE}


async def test_an_ended_report_goes_with_the_next_write() -> None:
    api = FakeApi()
    gone = Report("b" * 16, "a" * 16, 999)
    api.put("configmaps", reports.encode("tulle", {"0": gone}), "tulle")
    identity = replica(api)
    identity.heard("1", ONE)
    await identity.flush()
    assert stored(api) == {"1": ONE}
