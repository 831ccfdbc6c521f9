from proxy.admin.server import Admin
from proxy.inbound.accept import Inbound
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.tls.contexts import TLSContexts

class AdminInbound(Inbound):
    def __init__(
        self,
        reactor: Reactor,
        tls: TLSContexts,
        settings: Settings,
        registry: Registry,
        log: Log,
        admin: Admin,
    ) -> None: ...
