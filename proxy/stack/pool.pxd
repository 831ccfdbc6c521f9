# How an exchange gets a connection to the endpoint that was chosen for it. One pool per version of HTTP.
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.tls.contexts cimport TLSContexts


cdef class Limits:
    cdef int64_t connect_timeout_ns, failfast_ns, pool_idle_ns
    cdef int queue_capacity, peer_timeout_ms
    cdef bint backs_off


cdef class PoolOwner(Dispatcher):
    cdef Reactor reactor
    cdef TLSContexts tls
    cdef Limits limits
    cdef readonly list endpoints
    cdef void connection_stands(self, Endpoint endpoint)
    cdef void connection_failed(self, Endpoint endpoint, object reason)


cdef class Pool:
    cdef PoolOwner owner
    cdef void send(self, Exchange exchange, Endpoint endpoint)
    cdef void forget(self, Exchange exchange)                  # waits no longer
    cdef list retire(self, Endpoint endpoint)                  # gives back whoever waits for a connection to it
    cdef int idle_count(self)


cdef void give_up(list waiters, object reason)
