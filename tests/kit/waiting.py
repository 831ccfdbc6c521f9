"""Waiting on conditions, never on the clock alone: each wait is bounded and says what it last saw when it gives up.

A bound is for a machine that has two processors for what a test starts. Where others take them, all that a test waits
for takes longer; `slowness` says how much, so that a bound keeps its meaning on both.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from components.deploy.errors import ClusterError

T = TypeVar("T")


OWN_SHARE = 2.0
"""What a test starts keeps two processors busy by itself; only what is beyond that is somebody else's."""
MOST_SLOWED = 6.0
"""A bound grows no further than this: a machine more loaded than that proves nothing."""
SPIN_SECONDS = 0.05


def slowness() -> float:
    """How many times longer things take here now because of other work: 1 on a machine that is the tests' own.

    The larger of two views: how long a short computation takes against the processor time it gets, and how many
    processes want each processor.
    """
    begun, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < SPIN_SECONDS:
        pass
    slowed = (time.monotonic() - begun) / SPIN_SECONDS
    wanted = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(MOST_SLOWED, max(1.0, slowed / OWN_SHARE, wanted / OWN_SHARE))


class GaveUpError(AssertionError):
    """A condition that did not come true in its time."""


def until(what: str, look: Callable[[], T | None], seconds: float = 60, pause: float = 0.25) -> T:
    """Look until there is something to see, and return it. A cluster that refuses for a while is looked at again.

    The bound is for a machine of one's own: before giving up it is asked whether this one is busy with other work.
    """
    begun, allowed = time.monotonic(), seconds
    last: object = None
    while True:
        try:
            seen = look()
            last = seen if seen else last
        except ClusterError as error:
            seen, last = None, error
        if seen:
            return seen
        if time.monotonic() >= begun + allowed:
            allowed = max(allowed, seconds * slowness())
        if time.monotonic() >= begun + allowed:
            raise GaveUpError(f"{what}: not within {allowed:g} s" + (f"; last: {last}" if last else ""))
        time.sleep(pause)


def while_true(what: str, holds: Callable[[], bool], seconds: float, pause: float = 0.25) -> None:
    """Fail as soon as something that must hold for a time does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), what
        time.sleep(pause)
