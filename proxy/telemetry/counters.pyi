from typing import Any

Labels = tuple[tuple[str, str], ...]
LATENCY_BOUNDS_MS: tuple[int, ...]

class Series:
    labels: Labels
    touched_ns: int
    is_pinned: bool
    is_dropped: bool
    def __init__(self, labels: Labels) -> None: ...

class TCPSeries(Series):
    opened: int
    open_now: int
    read_bytes: int
    write_bytes: int
    closed: dict[str, int]

class Latencies:
    status: int
    sum_ms: int
    count: int
    def counts(self) -> list[int]: ...

class Outcomes:
    status: int
    grpc_status: int
    error: str | None
    is_failure: bool
    count: int

class RequestSeries(Series):
    requests: int
    latencies: list[Latencies]
    outcomes: list[Outcomes]
    def count(
        self, status: int, *, grpc_status: int = -1, error: str | None = None, elapsed_ns: int = 0, now_ns: int = 0
    ) -> None: ...

class CounterTable:
    series: dict[Labels, Any]
    def __init__(self, kind: type[Series]) -> None: ...
    def get(self, labels: Labels) -> Series: ...

class EventCounters:
    counts: dict[tuple[str, Labels], int]
    def add(self, family: str, labels: Labels, amount: int = 1) -> None: ...
