"""Connections that speak HTTP/1: pooled by endpoint, last used first; a waiting exchange takes whichever is free
first, one that is being made or one that becomes idle."""
from libc.stdint cimport int64_t

from proxy.io.dial cimport dial
from proxy.io.reactor cimport Timer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Exchange
from proxy.stack.http1_client cimport ConnectionObserver, HTTP1Client
from proxy.stack.http1_exchange cimport HTTP1Exchange
from proxy.stack.pool cimport Pool, PoolOwner, give_up

from proxy.tls.contexts import ALPN_HTTP1

cdef str TULLE_HTTP1 = ALPN_HTTP1

cdef enum:
    MAX_DIALS = 8  # connections being made to one endpoint at a time

cdef int64_t IDLE_TICK_NS = 1_000_000_000


cdef class PoolObserver(ConnectionObserver):
    cdef void connection_opened(self, HTTP1Client client):
        client.endpoint.dialing -= 1
        self.pool.owner.connection_stands(client.endpoint)

    cdef void connection_failed(self, HTTP1Client client, object reason):
        client.endpoint.dialing -= 1
        self.pool.owner.connection_failed(client.endpoint, reason)
        self.pool.dial_failed(client.endpoint, reason)

    cdef void connection_idle(self, HTTP1Client client):
        self.pool.take_back(client)

    cdef void connection_gone(self, HTTP1Client client):
        self.pool.remove(client)


cdef class IdleTimer(Timer):
    cdef void expired(self):
        self.pool.reap()


cdef class HTTP1Pool(Pool):
    def __init__(self, PoolOwner owner not None):
        super().__init__(owner)
        self.observer = PoolObserver()
        self.observer.pool = self
        self.idle_timer = IdleTimer()
        self.idle_timer.pool = self

    cdef int idle_count(self):
        return self.idle

    cdef void send(self, Exchange exchange, Endpoint endpoint):
        cdef HTTP1Client client
        # A peer that closes one connection closes all that are idle, and says so of each in its own time: what was
        # lost here before waits for a connection that stands.
        while endpoint.idle and exchange.avoid is not endpoint:
            client = <HTTP1Client>endpoint.idle.pop()
            self.idle -= 1
            client.is_idle = False
            if client.is_open and not client.transport.eof:
                client.begin(<HTTP1Exchange>exchange)
                return
        exchange.waiting = True
        endpoint.waiters.append(exchange)
        self.start_dials(endpoint)

    cdef void forget(self, Exchange exchange):
        exchange.endpoint.waiters.remove(exchange)

    cdef list retire(self, Endpoint endpoint):
        cdef list waiters = endpoint.waiters
        endpoint.waiters = []
        for client in list(endpoint.idle):
            (<HTTP1Client>client).detach()
        return waiters

    cdef void start_dials(self, Endpoint endpoint):
        """As many connections in the making as there are waiters, within the limit that keeps a burst from becoming
        a storm of handshakes, each too slow for its time limit."""
        cdef HTTP1Client client
        cdef PoolOwner owner = self.owner
        while endpoint.dialing < MAX_DIALS and endpoint.dialing < len(endpoint.waiters):
            client = HTTP1Client()
            client.endpoint = endpoint
            client.observer = self.observer
            endpoint.dialing += 1
            dial(
                owner.reactor, endpoint.address, client, owner.tls.client if endpoint.identity is not None else None,
                endpoint.identity, TULLE_HTTP1, owner.limits.connect_timeout_ns, owner.limits.peer_timeout_ms,
                endpoint.connections,
            )

    cdef void dial_failed(self, Endpoint endpoint, object reason):
        """One waiter gives up, and all of them when no other connection is being made."""
        cdef list lost = endpoint.waiters[:1] if endpoint.dialing > 0 else endpoint.waiters
        endpoint.waiters = endpoint.waiters[len(lost):]
        give_up(lost, reason)

    cdef void take_back(self, HTTP1Client client):
        cdef Endpoint endpoint = client.endpoint
        cdef HTTP1Exchange exchange
        if endpoint.waiters:
            exchange = <HTTP1Exchange>endpoint.waiters.pop(0)
            exchange.waiting = False
            client.begin(exchange)
            self.start_dials(endpoint)
            return
        if endpoint.is_removed:
            client.detach()
            return
        client.is_idle = True
        client.idle_since_ns = self.owner.reactor.now_ns
        endpoint.idle.append(client)
        self.idle += 1
        if self.idle_timer.slot < 0:
            self.owner.reactor.arm(self.idle_timer, IDLE_TICK_NS)

    cdef void remove(self, HTTP1Client client):
        if client.is_idle:
            client.is_idle = False
            client.endpoint.idle.remove(client)
            self.idle -= 1

    cdef void reap(self):
        """Close what nobody has used for the idle time."""
        cdef HTTP1Client client
        cdef list oldest = []
        cdef int64_t limit = self.owner.reactor.now_ns - self.owner.limits.pool_idle_ns
        for endpoint in self.owner.endpoints:
            for item in (<Endpoint>endpoint).idle:
                client = <HTTP1Client>item
                if client.idle_since_ns > limit:
                    break
                oldest.append(client)
        for item in oldest:
            (<HTTP1Client>item).detach()
        if self.idle > 0:
            self.owner.reactor.arm(self.idle_timer, IDLE_TICK_NS)
