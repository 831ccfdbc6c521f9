"""Watched values, and the waits between tries."""

import asyncio

import pytest

from proxy.control.backoff import CAP, Backoff
from proxy.control.cells import Cell


@pytest.mark.asyncio
async def test_a_cell_is_waited_for_and_then_always_there() -> None:
    cell: Cell[str | None] = Cell()
    assert (cell.value, cell.version) == (None, 0)
    waiting = [asyncio.create_task(cell.first()) for _ in range(3)]
    await asyncio.sleep(0)
    cell.set("one")
    assert await asyncio.gather(*waiting) == ["one"] * 3
    assert await cell.first() == "one"
    later = asyncio.create_task(cell.changed(1))
    await asyncio.sleep(0)
    assert not later.done()
    cell.set(None)
    assert await later is None
    assert await cell.changed(0) is None
    assert repr(cell) == "Cell(version=2, value=None)"


@pytest.mark.asyncio
async def test_whoever_stops_waiting_is_forgotten() -> None:
    cell: Cell[int] = Cell()
    waiting = asyncio.create_task(cell.first())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert cell._waiters == []
    cell.set(1)


def test_subscribers_hear_the_present_and_the_future() -> None:
    cell: Cell[int] = Cell()
    early: list[int] = []
    late: list[int] = []
    end = cell.subscribe(early.append)
    cell.set(1)
    cell.subscribe(late.append)
    cell.set(2)
    end()
    end()
    cell.set(3)
    assert (early, late) == ([1, 2], [1, 2, 3])


def test_backoff_doubles_up_to_its_cap_and_begins_again() -> None:
    backoff = Backoff(base=0.1, cap=2.0, dice=lambda: 1.0)
    assert [backoff.delay() for _ in range(7)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    backoff.reset()
    assert backoff.delay() == pytest.approx(0.1)
    for _ in range(10_000):
        assert backoff.delay() <= CAP


def test_backoff_is_spread_from_zero() -> None:
    delays = [Backoff(base=2.0).delay() for _ in range(500)]
    assert min(delays) < 0.2
    assert max(delays) > 1.8
