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

class ResponseSeries:
    status: int
    success: int
    failure: int
    latency_sum_ms: int
    latency_count: int
    def __init__(self, status: int) -> None: ...
    def counts(self) -> list[int]: ...

class RequestSeries(Series):
    requests: int
    by_status: dict[int, ResponseSeries]
    failures: dict[tuple[int, str], int]

class CounterTable:
    series: dict[Labels, Any]
    def __init__(self, kind: type[Series]) -> None: ...
    def get(self, labels: Labels) -> Series: ...

class EventCounters:
    counts: dict[tuple[str, Labels], int]
    def add(self, family: str, labels: Labels, amount: int = 1) -> None: ...
