"""Control connections over the proxy's own transport: plaintext to loopback, else TLS with the pod's identity.
Decides nothing of when to connect.
"""

from typing import Final

from proxy.control.client import Dial
from proxy.control.connection import Connection
from proxy.control.connection import Transport as ConnectionTransport
from proxy.control.trust import TrustBundle
from proxy.io.address import Address as SocketAddress
from proxy.io.dial import dial_control
from proxy.io.pyprotocol import PyProtocol
from proxy.io.reactor import Reactor
from proxy.settings import Address
from proxy.tls.contexts import ALPN_OPAQUE, TLSContext, TLSContexts

TIMEOUT: Final = 2.0
"""Seconds for TCP and TLS together: a pod that is gone answers nothing, and there is another address or another try."""


class _Adaptor(PyProtocol):
    """Hands what a transport says to a Connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_connected(self, transport: ConnectionTransport) -> None:
        self._connection.on_connected(transport)

    def on_data(self, data: bytes) -> None:
        self._connection.on_data(data)

    def on_eof(self) -> None:
        self._connection.on_eof()

    def on_writable(self) -> None:
        self._connection.on_writable()

    def on_closed(self, reason: Exception) -> None:
        self._connection.on_closed(reason)


def dialer(
    reactor: Reactor,
    contexts: TLSContexts,
    bundle: TrustBundle,
    server_name: str,
    *,
    may_be_anonymous: bool = False,
) -> Dial:
    """Dial one service whose identity must be `server_name`.

    A service that may be called anonymously is: identity alone, which goes by the token. Before the first certificate
    there is none to show, and one that has run out (a machine asleep for a day) would lock the pod out for good.
    """

    async def dial(address: Address, connection: Connection) -> None:
        context: TLSContext | None = None
        if not address.is_loopback:
            anchors = bundle.cell.value
            if may_be_anonymous and anchors is not None:
                context = contexts.anonymous_client(anchors.pem)
            else:
                context = contexts.client
            if context is None:
                raise ConnectionError("no certificate yet")
        socket_address = SocketAddress(address.host, address.port)
        dial_control(reactor, socket_address, _Adaptor(connection), context, server_name, ALPN_OPAQUE, TIMEOUT)

    return dial
