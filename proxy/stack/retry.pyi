from collections.abc import Iterable

from proxy.stack.budget import RetryBudget

class RetryPolicy:
    max_retries: int
    try_timeout_ns: int
    min_backoff_ns: int
    max_backoff_ns: int
    jitter: float
    budget: RetryBudget | None
    def __init__(
        self,
        statuses: Iterable[int] = (),
        grpc_codes: Iterable[int] = (),
        max_retries: int = 1,
        try_timeout: float = 0.0,
        min_backoff: float = 0.025,
        max_backoff: float = 0.25,
        jitter: float = 1.0,
        budget: RetryBudget | None = None,
    ) -> None: ...
