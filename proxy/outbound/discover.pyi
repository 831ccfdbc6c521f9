from proxy.control.destination import Destination as Discovery
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.tls.contexts import TLSContexts

class Destination:
    address: str
    is_known: bool
    is_opaque: bool
    users: int

class Destinations:
    known: dict[str, Destination]
    def __init__(
        self,
        reactor: Reactor,
        tls: TLSContexts,
        settings: Settings,
        registry: Registry,
        log: Log,
        discovery: Discovery,
    ) -> None: ...
    def drop_idle(self, idle_seconds: float) -> None: ...
