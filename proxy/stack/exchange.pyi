from proxy.stack.deadlines import Timeouts
from proxy.stack.retry import RetryPolicy

class Terms:
    retry: RetryPolicy | None
    timeouts: Timeouts | None
    def __init__(self, retry: RetryPolicy | None = None, timeouts: Timeouts | None = None) -> None: ...
