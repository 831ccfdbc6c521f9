"""A watched value: who holds a Cell sees the newest value at once, and may wait for the next. No I/O.

What the control plane says is kept in cells, so that losing the control plane changes nothing: a cell is only ever
replaced.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cell(Generic[T]):
    """One value that changes now and then; empty until the first `set`. For one event loop."""

    __slots__ = ("_callbacks", "_value", "_version", "_waiters")

    def __init__(self) -> None:
        self._value: T | None = None
        self._version = 0
        self._callbacks: list[Callable[[T], None]] = []
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def value(self) -> T | None:
        """The newest value; None before the first."""
        return self._value

    @property
    def version(self) -> int:
        """How many values there have been."""
        return self._version

    def set(self, value: T) -> None:
        """Replace the value and tell everyone, in the order in which they subscribed."""
        self._value = value
        self._version += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for callback in tuple(self._callbacks):
            callback(value)

    def subscribe(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Call `callback` at each change from now on, and at once if there is a value; returns what ends it."""
        self._callbacks.append(callback)
        if self._version:
            callback(self._value)  # type: ignore[arg-type]

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    async def first(self) -> T:
        """The value, as soon as there is one."""
        while not self._version:
            await self._next()
        return self._value  # type: ignore[return-value]

    async def changed(self, version: int) -> T:
        """The value, as soon as it is newer than `version`."""
        while self._version <= version:
            await self._next()
        return self._value  # type: ignore[return-value]

    async def _next(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def __repr__(self) -> str:
        return f"Cell(version={self._version}, value={self._value!r})"
