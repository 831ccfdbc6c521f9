"""An anchor's rotation: which step is safe when, and what proxies' reports are worth."""

import pytest

from components.trust import reports
from components.trust.reports import Report
from components.trust.rotation import Pod, Trust, refusal

OLD, NEW = "a" * 64, "b" * 64
ONE, BOTH, SWITCHED, DONE = (
    Trust(frozenset({OLD}), OLD),
    Trust(frozenset({OLD, NEW}), OLD),
    Trust(frozenset({OLD, NEW}), NEW),
    Trust(frozenset({NEW}), NEW),
)
PODS = [Pod(f"demo/web-{number}", f"uid-{number}") for number in range(3)]
BUNDLE = "c" * 16


def said(bundle: str = BUNDLE, anchor: str = OLD, pods: list[Pod] = PODS) -> dict[str, Report]:
    return {pod.uid: Report(bundle, anchor[:16], 2**31) for pod in pods}


def why(live: Trust, wanted: Trust, heard: dict[str, Report], pods: list[Pod] = PODS) -> str:
    return refusal(live, wanted, BUNDLE, pods, heard) or ""


def test_the_three_steps_pass_when_everyone_is_ready() -> None:
    assert why(ONE, BOTH, {}) == "", "publishing is always safe"
    assert why(BOTH, SWITCHED, said()) == ""
    assert why(SWITCHED, DONE, said(anchor=NEW)) == ""


def test_nothing_to_change_and_nothing_there_are_no_steps() -> None:
    for state in (ONE, BOTH, SWITCHED, DONE):
        assert why(state, state, {}) == ""
        assert why(Trust(frozenset(), ""), state, {}) == ""


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [
        (ONE, DONE, "change the signer and drop an anchor at once"),
        (ONE, SWITCHED, "not trusted yet"),
        (BOTH, DONE, "change the signer and drop an anchor at once"),
    ],
)
def test_a_step_cannot_be_left_out(live: Trust, wanted: Trust, words: str) -> None:
    assert words in why(live, wanted, said(anchor=NEW))


def test_a_missing_report_stops_and_names_its_pod() -> None:
    text = why(BOTH, SWITCHED, said(pods=PODS[:2]))
    assert text == "1 of 3 running meshed pods have not reported that they trust both anchors: demo/web-2"
    text = why(SWITCHED, DONE, said(anchor=NEW, pods=PODS[1:]))
    assert "demo/web-0" in text


def test_an_old_report_is_as_good_as_none() -> None:
    assert "3 of 3" in why(BOTH, SWITCHED, said(bundle="d" * 16))
    assert "3 of 3" in why(SWITCHED, DONE, said(anchor=OLD))


def test_many_late_pods_are_counted_and_some_named() -> None:
    pods = [Pod(f"demo/web-{number:02}", str(number)) for number in range(30)]
    text = why(BOTH, SWITCHED, {}, pods)
    assert text.startswith("30 of 30")
    assert text.endswith("demo/web-04 and 25 more")


def test_going_back_before_the_drop_is_a_rotation_too() -> None:
    assert why(SWITCHED, BOTH, said()) == ""
    assert "at once" in why(SWITCHED, ONE, said())
    assert "of an anchor that stays" in why(BOTH, ONE, said(anchor=NEW))
    assert why(BOTH, ONE, said(anchor=OLD)) == ""


def test_reports_survive_a_round_and_what_has_ended_goes() -> None:
    first = {"1": Report("b", "a", 100), "2": Report("b", "a", 300)}
    stored = reports.decode(reports.encode("tulle", first))
    assert stored == first
    news = {"2": Report("c", "a", 400), "3": Report("c", "a", 500)}
    assert reports.merged(stored, news, now=200) == news


def test_more_pods_than_fit_lose_the_oldest_reports() -> None:
    many = {str(number): Report("b" * 16, "a" * 16, 1_700_000_000 + number) for number in range(reports.MOST + 5)}
    kept = reports.merged({}, many, now=0)
    assert len(kept) == reports.MOST
    assert "0" not in kept
    uids = {f"{number:036}": each for number, each in enumerate(kept.values())}
    assert len(reports.encode("tulle", uids)["data"][reports.KEY]) < 900_000, "fits a ConfigMap"


@pytest.mark.parametrize(
    "data", [None, {}, {"reports.json": "["}, {"reports.json": "[1]"}, {"reports.json": '{"a": 1}'}]
)
def test_what_cannot_be_read_was_never_reported(data: object) -> None:
    assert reports.decode({"data": data}) == {}
    assert reports.decode(None) == {}
