"""Rate limits: pure. Token buckets that are told the time."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

MAX_CLIENTS: Final = 100_000
"""How many clients are remembered; the one not seen for longest is forgotten, which at worst gives it a full bucket
again.
"""


@dataclass(slots=True)
class Bucket:
    """`burst` at once, then `rate` a second."""

    rate: float
    burst: float
    level: float
    at: float

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Limits:
    """One bucket per client and one for all."""

    def __init__(self, rate: float, burst: float, total_rate: float, total_burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._total = Bucket(total_rate, total_burst, total_burst, now)
        self._clients: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __repr__(self) -> str:
        return f"Limits({len(self._clients)} clients, {self._total.level:.0f} of {self._total.burst:.0f} left for all)"

    def take_total(self, now: float) -> bool:
        """Whether the authority as a whole may do one more piece of work."""
        return self._total.take(now)

    def take_client(self, client: Hashable, now: float) -> bool:
        """Whether this client may have one more."""
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = Bucket(self._rate, self._burst, self._burst, now)
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        return bucket.take(now)
