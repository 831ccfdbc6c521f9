"""Connections that speak HTTP/2: as few per endpoint as its limit on streams allows, kept as long as the endpoint is
known."""
from proxy.io.dial cimport dial
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Exchange
from proxy.stack.http2_client cimport HTTP2Client, SessionObserver
from proxy.stack.http2_connection cimport ConnectionProtocol
from proxy.stack.http2_exchange cimport HTTP2Exchange
from proxy.stack.pool cimport Pool, PoolOwner, give_up

from proxy.tls.contexts import ALPN_HTTP2

cdef str TULLE_HTTP2 = ALPN_HTTP2

cdef enum:
    MAX_SESSIONS = 16  # to one endpoint; beyond them, exchanges wait for a stream


cdef class PoolObserver(SessionObserver):
    cdef void session_opened(self, HTTP2Client client):
        cdef Endpoint endpoint = client.endpoint
        endpoint.session_dialing -= 1
        self.pool.owner.connection_stands(endpoint)
        self.pool.sessions += 1
        if endpoint.is_removed:
            client.retire()
            return
        endpoint.sessions.append(client)
        self.pool.serve_waiters(client)

    cdef void session_failed(self, HTTP2Client client, object reason):
        cdef Endpoint endpoint = client.endpoint
        cdef list lost = endpoint.stream_waiters
        endpoint.session_dialing -= 1
        endpoint.stream_waiters = []
        self.pool.owner.connection_failed(endpoint, reason)
        give_up(lost, reason)

    cdef void session_has_room(self, HTTP2Client client):
        self.pool.serve_waiters(client)

    cdef void session_gone(self, HTTP2Client client):
        cdef Endpoint endpoint = client.endpoint
        self.pool.sessions -= 1
        if client in endpoint.sessions:
            endpoint.sessions.remove(client)
        if endpoint.stream_waiters and not endpoint.sessions:
            self.pool.start_dial(endpoint)


cdef class HTTP2Pool(Pool):
    def __init__(self, PoolOwner owner not None):
        super().__init__(owner)
        self.observer = PoolObserver()
        self.observer.pool = self

    cdef int idle_count(self):
        return self.sessions

    cdef void send(self, Exchange exchange, Endpoint endpoint):
        cdef HTTP2Client client
        for item in endpoint.sessions:
            client = <HTTP2Client>item
            if client.has_room():
                client.begin(<HTTP2Exchange>exchange)
                return
        exchange.waiting = True
        endpoint.stream_waiters.append(exchange)
        self.start_dial(endpoint)

    cdef void forget(self, Exchange exchange):
        exchange.endpoint.stream_waiters.remove(exchange)

    cdef list retire(self, Endpoint endpoint):
        cdef list waiters = endpoint.stream_waiters
        endpoint.stream_waiters = []
        for client in list(endpoint.sessions):
            (<HTTP2Client>client).retire()
        return waiters

    cdef void start_dial(self, Endpoint endpoint):
        """One connection at a time: the streams that wait will most likely all fit on it."""
        cdef HTTP2Client client
        cdef ConnectionProtocol protocol
        cdef PoolOwner owner = self.owner
        if endpoint.session_dialing > 0 or len(endpoint.sessions) >= MAX_SESSIONS:
            return
        client = HTTP2Client()
        client.endpoint = endpoint
        client.observer = self.observer
        protocol = ConnectionProtocol()
        protocol.connection = client
        endpoint.session_dialing += 1
        dial(
            owner.reactor, endpoint.address, protocol, owner.tls.client if endpoint.identity is not None else None,
            endpoint.identity, TULLE_HTTP2, owner.limits.connect_timeout_ns, owner.limits.peer_timeout_ms,
            endpoint.connections,
        )

    cdef void serve_waiters(self, HTTP2Client client):
        cdef Endpoint endpoint = client.endpoint
        cdef HTTP2Exchange exchange
        while endpoint.stream_waiters and client.has_room():
            exchange = <HTTP2Exchange>endpoint.stream_waiters.pop(0)
            exchange.waiting = False
            client.begin(exchange)
        if endpoint.stream_waiters:
            self.start_dial(endpoint)
