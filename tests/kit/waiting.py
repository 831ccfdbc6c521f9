"""Waiting on conditions, never on the clock alone: each wait is bounded and says what it last saw when it gives up."""

import time
from collections.abc import Callable
from typing import TypeVar

from components.deploy.errors import ClusterError

T = TypeVar("T")


class GaveUpError(AssertionError):
    """A condition that did not come true in its time."""


def until(what: str, look: Callable[[], T | None], seconds: float = 60, pause: float = 0.25) -> T:
    """Look until there is something to see, and return it. A cluster that refuses for a while is looked at again."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            seen = look()
            last = seen if seen else last
        except ClusterError as error:
            seen, last = None, error
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise GaveUpError(f"{what}: not within {seconds:g} s" + (f"; last: {last}" if last else ""))
        time.sleep(pause)


def while_true(what: str, holds: Callable[[], bool], seconds: float, pause: float = 0.25) -> None:
    """Fail as soon as something that must hold for a time does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), what
        time.sleep(pause)
