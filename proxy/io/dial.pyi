from proxy.io.address import Address
from proxy.io.pyprotocol import PyProtocol
from proxy.io.reactor import Reactor
from proxy.tls.contexts import TLSContext

class DescriptorsExhausted(OSError):
    cause: str

def dial_control(
    reactor: Reactor,
    address: Address,
    protocol: PyProtocol,
    context: TLSContext | None,
    server_name: str | None,
    alpn: str | None,
    timeout: float,
) -> None: ...
