"""The admin port: TLS is told apart and terminated as on any inbound port, then requests go to `proxy.admin.server`.

A client certificate is asked for but not required: the kubelet probes in plaintext, and what a caller may see is
decided per path.
"""
import asyncio

from proxy.io.address cimport Address
from proxy.inbound.accept cimport Inbound, InboundConnection
from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.stack.http1_exchange cimport HTTP1Exchange
from proxy.stack.http1_server cimport HTTP1Server
from proxy.stack.routing cimport Refusal, Router
from proxy.wire cimport http1

from proxy.admin.server import Peer, Request


cdef class AdminInbound(Inbound):
    """`admin` is proxy.admin.server.Admin."""

    def __init__(self, reactor, tls, settings, registry, log, admin):
        super().__init__(reactor, tls, settings, registry, log, ())
        self.admin = admin
        self.serves_http1_only = True

    cdef str objection(self, Address peer, Address original):
        return None

    cdef Router router_for(self, InboundConnection connection):
        return AdminRouter(self.admin, connection.peer.ip, connection.transport.peer_identity or "")


cdef class AdminRouter(Router):
    """Takes the head of each request down as Python values; the dispatcher then has it answered."""

    def __init__(self, admin, str ip, str identity):
        self.dispatcher = DISPATCHER
        self.admin = admin
        self.peer = Peer(ip, identity)
        self.client_id = b""

    cdef Refusal route(self, Exchange exchange):
        cdef int i
        self.method = http1.head.method_text[:http1.head.method_size].decode("latin-1")
        self.target = http1.head.target[:http1.head.target_size].decode("latin-1")
        self.fields = {}
        for i in range(http1.head.field_count):
            name = http1.head.fields[i].name[:http1.head.fields[i].name_size].decode("latin-1").lower()
            self.fields[name] = http1.head.fields[i].value[:http1.head.fields[i].value_size].decode("latin-1")
        return None


cdef class AdminDispatcher(Dispatcher):
    """Has requests answered by what their connection's router took down of them."""

    cdef void dispatch(self, Exchange asked):
        cdef HTTP1Exchange exchange = <HTTP1Exchange>asked
        cdef AdminRouter router = <AdminRouter>(<HTTP1Server>exchange.downstream).router
        cdef bytes whole
        if not exchange.request_complete:
            return
        whole = exchange.request.data[:exchange.request.size]
        body = whole.partition(b"\r\n\r\n")[2]
        response = router.admin.handle(Request(router.method, router.target, router.fields, router.peer, body))
        if isinstance(response.body, bytes):
            (<HTTP1Server>exchange.downstream).respond(response.status, response.headers, response.body)
        else:
            task = asyncio.get_running_loop().create_task(gather(exchange.downstream, response))
            GATHERING.add(task)
            task.add_done_callback(GATHERING.discard)


cdef AdminDispatcher DISPATCHER = AdminDispatcher()

GATHERING = set()
"""Answers being made: the loop itself holds its tasks only weakly."""


async def gather(HTTP1Server server, response):
    """Collect a body that is made in pieces, letting traffic pass between them."""
    chunks = [chunk async for chunk in response.body]
    server.respond(response.status, response.headers, b"".join(chunks))
