from typing import Any

from proxy.telemetry.counters import Series

QUEUE_BOUNDS: tuple[float, ...]

class BalancerSeries(Series):
    balancers: list[Any]
    requests: int
    waiting: int
    resets: int
    additions: int
    removals: int
    openings: int
    shuttings: int
    opened_at: float
    shut_at: float
    timeout: float
    def queue_latency(self) -> tuple[tuple[int, ...], float]: ...
    def endpoints(self) -> int: ...
    def ready(self) -> int: ...
