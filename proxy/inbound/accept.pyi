from collections.abc import Iterable

from proxy.io.listen import Acceptor
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.stack.http1_server import ConnectionSet
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.tls.contexts import TLSContexts

class Inbound(Acceptor):
    connections: ConnectionSet
    access_log: AccessLog | None
    def __init__(
        self,
        reactor: Reactor,
        tls: TLSContexts,
        settings: Settings,
        registry: Registry,
        log: Log,
        own_ports: Iterable[int],
    ) -> None: ...
