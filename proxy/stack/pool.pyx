"""What the pools of both versions of HTTP share."""
from libc.stdint cimport int64_t

from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Dispatcher, Exchange


cdef class Limits:
    """Times in seconds; `queue_capacity` in requests. Without `backs_off` an endpoint is ready again at once, without
    `peer_timeout` it is in this pod: the local application."""

    def __init__(self, double connect_timeout, double failfast_timeout, double pool_idle, int queue_capacity=10_000,
                 bint backs_off=True, double peer_timeout=0):
        self.peer_timeout_ms = <int>(peer_timeout * 1000)
        self.backs_off = backs_off
        self.connect_timeout_ns = <int64_t>(connect_timeout * 1e9)
        self.failfast_ns = <int64_t>(failfast_timeout * 1e9)
        self.pool_idle_ns = <int64_t>(pool_idle * 1e9)
        self.queue_capacity = queue_capacity


cdef class PoolOwner(Dispatcher):
    """Who is told how connects fare. Implemented by `balance`."""

    cdef void connection_stands(self, Endpoint endpoint):
        pass

    cdef void connection_failed(self, Endpoint endpoint, object reason):
        pass


cdef class Pool:
    def __init__(self, PoolOwner owner not None):
        self.owner = owner

    cdef void send(self, Exchange exchange, Endpoint endpoint):
        pass

    cdef void forget(self, Exchange exchange):
        pass

    cdef list retire(self, Endpoint endpoint):
        return []

    cdef int idle_count(self):
        return 0


cdef void give_up(list waiters, object reason):
    """A connection did not stand, so nothing of a request has left: each waiter goes elsewhere or is refused."""
    cdef Exchange exchange
    for item in waiters:
        exchange = <Exchange>item
        exchange.waiting = False
        if isinstance(reason, TimeoutError):
            exchange.lost("connect timeout", 504, True)
        else:
            exchange.lost("connect error", 502, True)
