"""How long to wait before the next try: pure but for the dice, which are passed in.

Full jitter: any wait between nothing and the current ceiling. A thousand proxies that lose one control plane together
come back spread over the whole interval, and each of them within CAP.
"""

import random
from collections.abc import Callable
from typing import Final

BASE: Final = 0.1
CAP: Final = 2.0
"""Seconds between two tries at most: after an outage, discovery is fresh again this soon."""


class Backoff:
    """Delays that double from `base` up to `cap`, each drawn evenly from zero to the ceiling."""

    __slots__ = ("_base", "_cap", "_dice", "_tries")

    def __init__(self, base: float = BASE, cap: float = CAP, dice: Callable[[], float] = random.random) -> None:
        self._base = base
        self._cap = cap
        self._dice = dice
        self._tries = 0

    def delay(self) -> float:
        """The next wait, in seconds."""
        ceiling = min(self._cap, self._base * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return ceiling * self._dice()

    def reset(self) -> None:
        """Begin again from `base`: something worked."""
        self._tries = 0
