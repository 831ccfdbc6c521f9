from typing import Any

Labels = tuple[tuple[str, str], ...]
LATENCY_BOUNDS_MS: tuple[int, ...]

class Series:
    labels: Labels
    touched_ns: int
    is_pinned: bool
    is_dropped: bool
    is_overflow: bool
    text: str | None
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
    def began(self, now_ns: int) -> None: ...
    def answered(self, status: int, elapsed_ns: int) -> None: ...
    def over(self, status: int, grpc_status: int, error: str | None, now_ns: int) -> None: ...
    def count(
        self, status: int, *, grpc_status: int = -1, error: str | None = None, elapsed_ns: int = 0, now_ns: int = 0
    ) -> None: ...

class EventSeries(Series):
    count: int
    def add(self, now_ns: int, amount: int = 1) -> None: ...

class CounterTable:
    series: dict[Labels, Any]
    limit: int
    limits: dict[str, int]
    overflowed: int
    def __init__(self, kind: type[Series], limit: int = 10_000) -> None: ...
    def get(self, labels: Labels) -> Series: ...
    def drop_idle(self, now_ns: int, retain_ns: int) -> int: ...
