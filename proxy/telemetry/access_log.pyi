from proxy.io.reactor import Reactor

class AccessLog:
    is_json: bool
    dropped: int
    def __init__(self, reactor: Reactor, style: str, fd: int = 2) -> None: ...
    def flush(self) -> None: ...
