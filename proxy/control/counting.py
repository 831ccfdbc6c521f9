"""What a call of the control plane counts as. The clock is its own; what the call says is not here."""

import time
from typing import Final

from proxy.telemetry.counters import RequestSeries

UNSAID: Final = -2
"""As grpc-status of a call that ended without one (proxy.telemetry.classify)."""


class Counted:
    """What one call is counted as: its start, its first message, and its end, which comes once."""

    __slots__ = ("_began", "_is_answered", "_is_over", "_series", "status")

    def __init__(self, series: RequestSeries) -> None:
        self._series = series
        self._began = time.monotonic_ns()
        self._is_answered = self._is_over = False
        self.status = 0
        series.began(self._began)

    def answered(self) -> None:
        """The first byte of the body has come."""
        if not self._is_answered:
            self._is_answered = True
            self._series.answered(self.status, time.monotonic_ns() - self._began)

    def over(self, grpc_status: int, error: str | None) -> None:
        """With a status of the service (`error` is None), or because something broke off."""
        if not self._is_over:
            self._is_over = True
            if self.status:
                self.answered()
            self._series.over(self.status, grpc_status, error, time.monotonic_ns())
