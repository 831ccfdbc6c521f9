from collections.abc import Callable, Sized
from mmap import mmap

from proxy.io.listen import Acceptor
from proxy.io.reactor import Reactor

MEMORY_HEADER: int

def end_with_parent() -> None: ...

class Slots:
    taken: int
    open: int
    def __init__(self, memory: mmap) -> None: ...

class Lane(Slots):
    fd: int
    def __init__(self, memory: mmap, fd: int) -> None: ...

class Lanes:
    refused: int
    def __init__(self, reactor: Reactor) -> None: ...
    def add(self, lane: Lane) -> None: ...
    def remove(self, lane: Lane) -> None: ...
    def close(self) -> None: ...

class Handing(Acceptor):
    def __init__(self, lanes: Lanes, is_inbound: bool) -> None: ...

class Receiving:
    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        slots: Slots,
        inbound: Acceptor,
        outbound: Acceptor,
        inbound_open: Sized,
        outbound_open: Sized,
        lost: Callable[[], object],
    ) -> None: ...
    def start(self) -> None: ...
    def pause(self) -> None: ...
    def say_open(self) -> None: ...
    def take(self) -> None: ...
