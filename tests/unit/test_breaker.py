"""Circuit breakers: when an endpoint is left alone, and how it comes back."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from proxy.stack.breaker import BreakerPolicy, Ejections
from tests.kit.compiled import load

shim = load(Path(__file__).with_name("resilience_shim.pyx"), "proxy.stack.breaker", "proxy.stack.deadlines")


def breakers(count: int, **policy: Any) -> tuple[Ejections, list[Any]]:
    """That many endpoints of one balancer."""
    ejections = Ejections(count)
    return ejections, [shim.Breaker(BreakerPolicy(**policy), ejections) for _ in range(count)]


def fail(breaker: Any, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.request("failed", now)


def test_seven_failures_in_a_row_shut_it_and_six_do_not() -> None:
    _, (one, _) = breakers(2)
    fail(one, 6)
    one.request("succeeded", 0)
    fail(one, 6)
    assert one.admits(0)
    fail(one, 1)
    assert one.state == "shut"
    assert not one.admits(0.999)


def test_one_probe_brings_it_back_and_only_one_is_let_through() -> None:
    ejections, (one, _) = breakers(2, jitter=0.0)
    fail(one, 7)
    assert one.admits(1.0)
    ticket = one.enter(1.0)
    assert one.state == "probing"
    assert not one.admits(1.5)
    one.observe(ticket, "succeeded", 1.6)
    assert one.admits(1.6)
    assert len(ejections) == 0


def test_a_probe_that_streams_is_a_success_before_its_end() -> None:
    _, (one, _) = breakers(2, jitter=0.0)
    fail(one, 7)
    ticket = one.enter(1.0)
    one.answers(ticket - 1)
    assert one.state == "probing", "an answer to what was sent before"
    one.answers(ticket)
    assert one.state == "admitting"
    one.observe(ticket, "failed", 30.0)
    assert one.state == "admitting"


def test_what_is_said_of_an_endpoint_that_is_gone_takes_nobodys_place() -> None:
    ejections, (one, _) = breakers(2, max_failures=1)
    ticket = one.enter(0.0)
    one.leave()
    one.observe(ticket, "failed", 0.1)
    assert len(ejections) == 0


def test_a_failed_probe_doubles_the_penalty_up_to_its_maximum() -> None:
    _, (one, _) = breakers(2, jitter=0.0, min_penalty=1.0, max_penalty=60.0)
    fail(one, 7)
    penalties = []
    now = 0.0
    for _ in range(8):
        penalties.append(round(one.shut_until - now, 6))
        now = one.shut_until
        one.request("failed", now)
    assert penalties == [1, 2, 4, 8, 16, 32, 60, 60]
    now = one.shut_until
    one.request("succeeded", now)
    fail(one, 7, now)
    assert one.shut_until - now == pytest.approx(1.0), "a success forgets the old penalties"


def test_the_jitter_is_a_part_of_the_penalty_and_never_passes_the_maximum() -> None:
    seen = []
    for _ in range(200):
        _, (one, _) = breakers(2, jitter=0.5, min_penalty=1.0, max_penalty=1.2)
        fail(one, 7)
        seen.append(one.shut_until)
    assert all(1.0 <= each <= 1.2 for each in seen)
    assert len(set(seen)) > 50
    assert max(seen) == 1.2


def test_an_answer_from_before_the_gate_moved_says_nothing() -> None:
    _, (one, _) = breakers(2, jitter=0.0)
    early = [one.enter(0.0) for _ in range(3)]
    fail(one, 7)
    until = one.shut_until
    one.observe(early[0], "succeeded", 0.5)
    one.observe(early[1], "failed", 0.5)
    assert one.state == "shut"
    assert one.shut_until == until
    probe = one.enter(1.0)
    one.observe(early[2], "succeeded", 1.1)
    assert one.state == "probing", "a late answer is not the probe's"
    one.observe(probe, "failed", 1.2)
    assert one.state == "shut"


def test_a_probe_whose_caller_went_away_is_made_again_at_once() -> None:
    _, (one, _) = breakers(2, jitter=0.0)
    fail(one, 7)
    one.observe(one.enter(1.0), "abandoned", 1.1)
    assert one.admits(1.1)
    one.request("succeeded", 1.1)
    assert one.state == "admitting"


def test_a_probe_that_is_never_answered_does_not_shut_it_for_ever() -> None:
    _, (one, _) = breakers(2, jitter=0.0)
    fail(one, 7)
    one.enter(1.0)
    assert not one.admits(10.9)
    assert one.admits(11.0)


def test_being_asked_for_less_is_no_failure_in_a_row_but_fails_a_probe() -> None:
    _, (one, _) = breakers(2, jitter=0.0)
    fail(one, 6)
    for _ in range(20):
        one.request("limited", 0.0)
    assert one.admits(0.0)
    fail(one, 1)
    assert not one.admits(0.0)
    one.request("limited", 1.0)
    assert one.state == "shut"


@pytest.mark.parametrize(("total", "failing", "shut"), [(4, 4, False), (5, 1, False), (5, 2, True), (10, 3, True)])
def test_the_success_rate_counts_from_the_fifth_request(total: int, failing: int, shut: bool) -> None:
    _, (one, _) = breakers(2, max_failures=0, success_threshold=0.8, min_requests=5)
    outcomes = ["succeeded"] * (total - failing) + ["failed"] * failing
    for outcome in outcomes:
        one.request(outcome, 100.0)
    assert (one.state == "shut") == shut


def test_the_success_rate_forgets_what_is_older_than_its_window() -> None:
    _, (one, _) = breakers(2, max_failures=0, success_threshold=0.8, min_requests=5, window=10.0)
    for second in range(4):
        one.request("failed", 100.0 + second)
    for second in range(40):
        one.request("succeeded", 111.0 + second / 10)
        one.request("failed" if second == 39 else "succeeded", 111.0 + second / 10)
    assert one.state == "admitting"


def test_limits_degrade_the_success_rate() -> None:
    _, (one, _) = breakers(2, max_failures=0, success_threshold=0.8, min_requests=5)
    for outcome in ["succeeded"] * 3 + ["limited"] * 2:
        one.request(outcome, 0.0)
    assert one.state == "shut"


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_a_mass_failure_shuts_at_most_half(count: int, most: int) -> None:
    ejections, every = breakers(count)
    for one in every:
        fail(one, 20)
    assert sum(each.state == "shut" for each in every) == most == len(ejections)
    assert sum(each.admits(0.5) for each in every) == count - most


def test_when_one_comes_back_the_next_that_fails_may_be_shut() -> None:
    _, (one, two) = breakers(2, jitter=0.0)
    fail(one, 7)
    fail(two, 7)
    assert (one.state, two.state) == ("shut", "admitting")
    one.request("succeeded", 1.0)
    fail(two, 1, 1.1)
    assert (one.state, two.state) == ("admitting", "shut")


def test_when_endpoints_go_the_floor_is_kept_by_those_shut_longest() -> None:
    ejections, every = breakers(6)
    for one in every[:3]:
        fail(one, 7)
    for gone in every[4:]:
        gone.leave()
    ejections.resize(4)
    assert [each.state for each in every[:3]] == ["admitting", "shut", "shut"]
    every[1].leave()
    ejections.resize(3)
    assert len(ejections) == 1


def test_no_order_of_events_breaks_the_floor_or_loses_a_breaker() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        count = chance.randint(1, 6)
        ejections, every = breakers(count, max_failures=2, success_threshold=0.5, min_requests=3)
        tickets: list[tuple[Any, int]] = []
        now = 0.0
        for _ in range(200):
            now += chance.random()
            one = chance.choice(every)
            if one.admits(now):
                tickets.append((one, one.enter(now)))
            if tickets and chance.random() < 0.7:
                which, ticket = tickets.pop(chance.randrange(len(tickets)))
                which.observe(ticket, chance.choice(["succeeded", "failed", "limited", "abandoned"]), now)
            out = [each for each in every if each.state != "admitting"]
            assert len(out) == len(ejections) <= count // 2, seed
        assert any(each.admits(now + 70) for each in every)
        assert all(each.admits(now + 70) for each in every), "every penalty ends"


@pytest.mark.parametrize(
    "wrong",
    [{"max_failures": -1}, {"min_penalty": 0.0}, {"min_penalty": 2.0, "max_penalty": 1.0}, {"jitter": -0.1},
     {"success_threshold": 1.5}, {"window": 0.0}, {"min_requests": 0}],
)  # fmt: skip
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong.values())):g}"):
        BreakerPolicy(**wrong)


def test_policies_compare_by_value() -> None:
    assert BreakerPolicy() == BreakerPolicy(7, 1.0, 60.0, 0.5)
    different = [BreakerPolicy(), BreakerPolicy(6), BreakerPolicy(jitter=0.0), BreakerPolicy(success_threshold=0.5)]
    assert all(one != other for one, other in itertools.combinations(different, 2))
