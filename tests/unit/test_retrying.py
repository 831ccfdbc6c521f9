"""Retry policies, retry budgets and deadlines, by value."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.io.reactor import Reactor
from proxy.stack.budget import RetryBudget
from proxy.stack.deadlines import Timeouts
from proxy.stack.retry import RetryPolicy
from tests.kit.compiled import load

shim = load(Path(__file__).with_name("resilience_shim.pyx"), "proxy.stack.breaker", "proxy.stack.deadlines")


class Model:
    """A budget as described: tokens of the last ten slots, oldest forgotten, in plain lists."""

    def __init__(self, ratio: float, least: int, ttl: float) -> None:
        if ratio == 0:
            self.brings, self.takes = 0, 1
        elif ratio <= 1:
            self.brings, self.takes = 1, int(1 / ratio)
        else:
            self.brings, self.takes = 1000, int(1000 / ratio)
        self.reserve = least * int(ttl) * self.takes
        self.slot = ttl / 10
        self.moved: list[int] = [0] * 11
        self.began = 0.0

    def advance(self, now: float) -> None:
        behind = now - self.began
        if behind < self.slot:
            return
        steps = 1
        while behind > self.slot:
            steps += 1
            behind -= self.slot
        # A slot is closed when it is over; every further whole slot that passed was empty.
        self.moved = [*(self.moved + [0] * (steps - 1))[-10:], 0]
        self.began = now

    def deposit(self, now: float) -> None:
        self.advance(now)
        self.moved[-1] += self.brings

    def withdraw(self, now: float) -> bool:
        self.advance(now)
        if sum(self.moved) + self.reserve < self.takes:
            return False
        self.moved[-1] -= self.takes
        return True


def test_a_fresh_budget_bears_its_least_rate_over_its_time_and_no_more() -> None:
    budget = RetryBudget(0.2, 10, 10.0)
    assert [shim.withdraw(budget, 1000.0) for _ in range(101)] == [True] * 100 + [False]
    assert shim.balance(budget, 1000.0) == 0


def test_five_requests_pay_for_one_retry_at_a_ratio_of_a_fifth() -> None:
    budget = RetryBudget(0.2, 0, 10.0)
    for number in range(1, 21):
        shim.deposit(budget, 5.0)
        assert shim.withdraw(budget, 5.0) == (number % 5 == 0)


def test_what_was_paid_in_is_forgotten_after_its_time() -> None:
    budget = RetryBudget(1.0, 0, 10.0)
    shim.deposit(budget, 100.0)
    assert shim.balance(budget, 109.0) == 1
    assert shim.balance(budget, 122.0) == 0
    assert not shim.withdraw(budget, 122.0)


def test_what_was_taken_is_forgotten_too() -> None:
    budget = RetryBudget(0.0, 1, 10.0)
    assert [shim.withdraw(budget, 50.0) for _ in range(11)] == [True] * 10 + [False]
    assert shim.withdraw(budget, 75.0)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.2, 0.34, 0.5, 1.0, 1.5, 10.0])
def test_any_order_of_events_agrees_with_the_description(ratio: float) -> None:
    for seed in range(40):
        chance = random.Random(seed)
        least, ttl = chance.choice([0, 1, 3]), chance.choice([1.0, 5.0, 10.0])
        budget, model = RetryBudget(ratio, least, ttl), Model(ratio, least, ttl)
        now = 100.0
        model.began = now
        shim.balance(budget, now)
        for _ in range(300):
            now += chance.choice([0.0, 0.001, ttl / 25, ttl / 3, ttl * 3]) * chance.random()
            if chance.random() < 0.5:
                shim.deposit(budget, now)
                model.deposit(now)
            else:
                assert shim.withdraw(budget, now) == model.withdraw(now), (seed, now)


@pytest.mark.parametrize("wrong", [(-0.1, 10, 10.0), (0.2, -1, 10.0), (0.2, 10, 0.5), (0.2, 10, 61.0)])
def test_a_budget_that_cannot_be_is_refused(wrong: tuple[float, int, float]) -> None:
    with pytest.raises(ValueError, match="not between"):
        RetryBudget(*wrong)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ({"fault": "answered", "status": 503}, "retry"),
        ({"fault": "answered", "status": 500}, "keep"),
        ({"fault": "answered", "status": 200}, "keep"),
        ({"fault": "answered", "status": 200, "grpc": 14}, "retry"),
        ({"fault": "answered", "status": 200, "grpc": 13}, "keep"),
        ({"fault": "answered", "status": 503, "grpc": 0}, "keep"),
        ({"fault": "answered", "status": 200, "grpc": 77}, "keep"),
        ({"fault": "timed out"}, "retry"),
        ({"fault": "unserved", "status": 504}, "retry"),
        ({"fault": "answered", "status": 503, "ready": False}, "overflow"),
        ({"fault": "answered", "status": 503, "retries": 1}, "retry"),
        ({"fault": "answered", "status": 503, "retries": 2}, "limit exceeded"),
        ({"fault": "answered", "status": 503, "kept": False}, "too large"),
        ({"fault": "answered", "status": 200, "kept": False}, "keep"),
    ],
)
def test_what_is_tried_again(case: dict[str, Any], verdict: str) -> None:
    policy = RetryPolicy(statuses=[502, 503], grpc_codes=[14], max_retries=2)
    assert shim.decide(policy, **case) == verdict


def test_without_a_policy_of_its_own_nothing_that_was_answered_is_tried_again() -> None:
    policy = RetryPolicy()
    assert {shim.decide(policy, "answered", status=status) for status in range(100, 600)} == {"keep"}


def test_a_retry_is_paid_for_and_one_that_is_not_made_is_not() -> None:
    budget = RetryBudget(0.0, 1, 1.0)
    policy = RetryPolicy(statuses=[503], max_retries=5, budget=budget)
    assert shim.decide(policy, "answered", status=200) == "keep"
    assert shim.decide(policy, "answered", status=503, retries=5) == "limit exceeded"
    assert shim.decide(policy, "answered", status=503, ready=False) == "overflow"
    assert shim.decide(policy, "answered", status=503) == "retry"
    assert shim.decide(policy, "answered", status=503) == "overflow"


def test_pauses_double_with_full_jitter_up_to_their_maximum() -> None:
    policy = RetryPolicy(min_backoff=0.025, max_backoff=0.25, jitter=1.0)
    for retries, (least, most) in enumerate([(0.025, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.25), (0.25, 0.25)]):
        seen = [shim.backoff(policy, retries) for _ in range(300)]
        assert all(least <= each <= most for each in seen)
        assert retries == 4 or max(seen) - min(seen) > (most - least) / 2
    assert shim.backoff(policy, 1000) == 0.25


def test_the_last_try_is_not_cut() -> None:
    policy = RetryPolicy(max_retries=2, try_timeout=0.3)
    assert [shim.timeout_of_try(policy, retries) for retries in range(3)] == [0.3, 0.3, 0.0]


@pytest.mark.parametrize(
    ("timeouts", "after", "late"),
    [
        ({}, 1e6, "in time"),
        ({"request": 2.0}, 1.9, "in time"),
        ({"request": 2.0}, 2.0, "request"),
        ({"idle": 1.0}, 1.0, "idle"),
        ({"request": 3.0, "idle": 1.0}, 5.0, "request"),
        ({"response": 1.0}, 100.0, "in time"),
    ],
)
async def test_what_is_late(reactor: Reactor, timeouts: dict[str, float], after: float, late: str) -> None:
    assert shim.Deadlines(reactor, Timeouts(**timeouts)).judge(after) == late


async def until_said(deadlines: Any, *words: str) -> None:
    """Wait until these and no others were late."""
    for _ in range(500):
        if len(deadlines.said) >= len(words):
            break
        await asyncio.sleep(0.02)
    assert deadlines.said == list(words)


@pytest.fixture
async def reactor() -> AsyncIterator[Reactor]:
    made = Reactor(asyncio.get_running_loop())
    yield made
    made.close()


async def test_the_response_has_its_time_from_the_end_of_the_request_on(reactor: Reactor) -> None:
    deadlines = shim.Deadlines(reactor, Timeouts(response=0.2))
    await asyncio.sleep(0.3)
    assert not deadlines.armed
    deadlines.request_sent()
    assert deadlines.armed
    assert deadlines.said == []
    await until_said(deadlines, "response")
    assert not deadlines.armed


def test_movement_puts_off_the_idle_limit() -> None:
    loop = asyncio.new_event_loop()
    reactor = Reactor(loop)
    try:
        deadlines = shim.Deadlines(reactor, Timeouts(idle=1.0))
        for moved in (0.9, 1.8, 2.7):
            deadlines.moved_at(moved)
            assert deadlines.judge(moved + 0.99) == "in time"
            assert deadlines.judge(moved + 1.0) == "idle"
    finally:
        reactor.close()
        loop.close()


async def test_a_timer_that_fires_early_is_armed_again_and_silence_is_told_once(reactor: Reactor) -> None:
    deadlines = shim.Deadlines(reactor, Timeouts(idle=0.2))
    deadlines.moved_at(0.3)
    await until_said(deadlines, "idle")
    assert deadlines.age() >= 0.5
    assert not deadlines.armed


async def test_a_late_try_leaves_the_request_its_own_time(reactor: Reactor) -> None:
    deadlines = shim.Deadlines(reactor, Timeouts(request=2.0))
    deadlines.try_begins(0.05)
    await until_said(deadlines, "headers")
    assert deadlines.armed
    deadlines.try_begins(0.0)
    await until_said(deadlines, "headers", "request")


async def test_a_head_in_time_and_an_end_take_the_limits_away(reactor: Reactor) -> None:
    answered = shim.Deadlines(reactor, None)
    answered.try_begins(0.1)
    answered.headers_came()
    over = shim.Deadlines(reactor, Timeouts(request=0.1))
    over.end()
    assert not over.armed
    await asyncio.sleep(0.3)
    assert answered.said == over.said == []
