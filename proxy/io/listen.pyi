from proxy.io.address import Address
from proxy.io.reactor import Reactor

class Acceptor:
    open: int
    most: int

class Listener:
    address: Address
    def __init__(self, reactor: Reactor, address: Address, acceptor: Acceptor, peer_timeout: float = ...) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...
