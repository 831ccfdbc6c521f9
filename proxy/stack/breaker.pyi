class BreakerPolicy:
    max_failures: int
    success_threshold: float
    min_requests: int
    min_penalty_ns: int
    max_penalty_ns: int
    window_ns: int
    jitter: float
    def __init__(
        self,
        max_failures: int = 7,
        min_penalty: float = 1.0,
        max_penalty: float = 60.0,
        jitter: float = 0.5,
        success_threshold: float = 0.0,
        window: float = 10.0,
        min_requests: int = 5,
    ) -> None: ...

class Ejections:
    endpoints: int
    def __init__(self, endpoints: int = 0) -> None: ...
    def resize(self, endpoints: int) -> None: ...
    def __len__(self) -> int: ...
