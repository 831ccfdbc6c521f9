class Timeouts:
    request_ns: int
    response_ns: int
    idle_ns: int
    def __init__(self, request: float = 0.0, response: float = 0.0, idle: float = 0.0) -> None: ...
