from collections.abc import Iterable

from proxy.io.listen import Acceptor
from proxy.io.reactor import Reactor
from proxy.outbound.discover import Destinations
from proxy.settings import Settings
from proxy.stack.http1_server import ConnectionSet
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry

class Outbound(Acceptor):
    connections: ConnectionSet
    def __init__(
        self,
        reactor: Reactor,
        destinations: Destinations,
        settings: Settings,
        registry: Registry,
        log: Log,
        own_ports: Iterable[int],
    ) -> None: ...
