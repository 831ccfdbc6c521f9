"""Deadlines: on time, in any order, and without waking for nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import uvloop

from proxy.io.reactor import CallbackTimer, Reactor
from tests.kit.waiting import slowness

LATE = 0.2
"""Seconds a deadline may be late on a busy machine; the tick itself is 0.02."""


def run(conversation: Callable[[Reactor, asyncio.AbstractEventLoop], Awaitable[None]]) -> None:
    async def within() -> None:
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        try:
            await conversation(reactor, loop)
        finally:
            reactor.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(within())


async def fired(loop: asyncio.AbstractEventLoop, start: Callable[[Callable[[], object]], object]) -> float:
    """Seconds until the timer that `start` starts calls back."""
    began = loop.time()
    done: asyncio.Future[float] = loop.create_future()
    start(lambda: done.set_result(loop.time() - began))
    return await asyncio.wait_for(done, 5)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.21])
def test_a_deadline_is_never_early_and_hardly_late(seconds: float) -> None:
    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        took = await fired(loop, lambda call: CallbackTimer(call).start(reactor, seconds))
        assert seconds - 0.002 <= took < seconds + LATE * slowness()

    run(conversation)


def test_an_earlier_deadline_does_not_sleep_with_a_later_one() -> None:
    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        later = CallbackTimer(lambda: None)
        later.start(reactor, 60)
        took = await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.1))
        assert 0.098 <= took < 0.1 + LATE * slowness()

    run(conversation)


def test_deadlines_come_in_their_order_whatever_order_they_were_set_in() -> None:
    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        order: list[int] = []
        for number in (3, 1, 4, 2):
            CallbackTimer(partial(order.append, number)).start(reactor, number * 0.06)
        await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.35))
        assert order == [1, 2, 3, 4]

    run(conversation)


def test_a_deadline_may_be_taken_back_moved_and_set_from_another() -> None:
    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        seen: list[str] = []
        gone, moved = CallbackTimer(lambda: seen.append("gone")), CallbackTimer(lambda: seen.append("moved"))
        gone.start(reactor, 0.05)
        moved.start(reactor, 0.05)
        gone.cancel(reactor)
        moved.start(reactor, 0.2)

        def first() -> None:
            seen.append("first")
            CallbackTimer(lambda: seen.append("second")).start(reactor, 0.02)

        CallbackTimer(first).start(reactor, 0.05)
        await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.4))
        assert seen == ["first", "second", "moved"]

    run(conversation)


def test_a_deadline_that_fails_takes_no_other_along() -> None:
    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        told: list[str] = []
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))

        def broken() -> None:
            raise RuntimeError("broken")

        CallbackTimer(broken).start(reactor, 0.05)
        await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.05))
        await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.05))
        assert told == ["broken"]

    run(conversation)


def test_nothing_wakes_between_deadlines() -> None:
    """A thousand connections that wait with a time limit cost one wake-up when it passes, not fifty a second."""

    async def conversation(reactor: Reactor, loop: asyncio.AbstractEventLoop) -> None:
        expired: list[int] = []
        timers = [CallbackTimer(lambda: expired.append(1)) for _ in range(1000)]
        for timer in timers:
            timer.start(reactor, 0.5)
        await asyncio.sleep(0.4)
        assert (reactor.wakeups, len(expired)) == (0, 0)
        await fired(loop, lambda call: CallbackTimer(call).start(reactor, 0.3))
        assert len(expired) == 1000
        # The thousand were armed within a tick or two of each other.
        assert reactor.wakeups <= 5
        before = reactor.wakeups
        await asyncio.sleep(0.2)
        assert reactor.wakeups == before

    run(conversation)


def test_what_was_taken_back_costs_one_wake_up_at_most() -> None:
    async def conversation(reactor: Reactor, _: asyncio.AbstractEventLoop) -> None:
        for _number in range(1000):
            timer = CallbackTimer(lambda: None)
            timer.start(reactor, 0.1)
            timer.cancel(reactor)
        await asyncio.sleep(0.3)
        assert reactor.wakeups <= 1

    run(conversation)


def test_after_close_nothing_fires() -> None:
    async def conversation(reactor: Reactor, _: asyncio.AbstractEventLoop) -> None:
        seen: list[int] = []
        CallbackTimer(lambda: seen.append(1)).start(reactor, 0.05)
        reactor.close()
        await asyncio.sleep(0.15)
        assert not seen

    run(conversation)
