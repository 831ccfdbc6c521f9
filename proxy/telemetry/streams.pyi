from proxy.telemetry.counters import Series

DURATION_BOUNDS: tuple[float, ...]
FRAME_BOUNDS: tuple[int, ...]
DETECT_BOUNDS: tuple[float, ...]
DETECT_NAMES: tuple[str, ...]
ERRORS: dict[str, str]

class StatusCount:
    status: int
    error: str
    count: int

class StreamSeries(Series):
    requests: int
    request_bytes: int
    response_bytes: int
    statuses: list[StatusCount]
    retries: int
    retry_successes: int
    retry_limits: int
    retry_overflows: int
    def request_durations(self) -> tuple[tuple[int, ...], float]: ...
    def response_durations(self) -> tuple[tuple[int, ...], float]: ...
    def request_frame_sizes(self) -> tuple[tuple[int, ...], int]: ...
    def response_frame_sizes(self) -> tuple[tuple[int, ...], int]: ...

class DetectSeries(Series):
    def durations(self) -> tuple[tuple[int, ...], float]: ...
    def counts(self) -> list[tuple[str, int]]: ...
