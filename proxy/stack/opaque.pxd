# Connecting an opaque connection to an endpoint, and joining the two.
from libc.stdint cimport int64_t

from proxy.io.transport cimport Protocol, Transport
from proxy.stack.balance cimport Balancer
from proxy.stack.buffer cimport Buffer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.routing cimport ConnectionSet
from proxy.telemetry.balancing cimport BalancerSeries


cdef class OpaqueWaiting(Protocol):
    cdef OpaqueConnect connect


cdef class OpaqueConnect(Protocol):
    cdef Transport downstream
    cdef Balancer balancer
    cdef Endpoint endpoint, avoid
    cdef ConnectionSet connections
    cdef Buffer early
    cdef object refused, on_end
    cdef BalancerSeries counted
    cdef int attempts
    cdef int64_t started_ns
    cdef int64_t queued_ns           # since when it has waited for an endpoint; 0: it does not
    cdef bint downstream_gone, is_waiting
    cdef void start(self, Transport downstream, const char* data, Py_ssize_t size)
    cdef void attempt(self)
    cdef void leave_queue(self)
    cdef void give_up(self, str error)
    cdef void settle(self)
