# Connecting an opaque connection to an endpoint, and joining the two.
from libc.stdint cimport int64_t

from proxy.io.transport cimport Protocol, Transport
from proxy.stack.balance cimport Balancer
from proxy.stack.buffer cimport Buffer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.routing cimport ConnectionSet


cdef class OpaqueWaiting(Protocol):
    cdef OpaqueConnect connect


cdef class OpaqueConnect(Protocol):
    cdef Transport downstream
    cdef Balancer balancer
    cdef Endpoint endpoint, avoid
    cdef ConnectionSet connections
    cdef Buffer early
    cdef object refused, on_end
    cdef int attempts
    cdef int64_t started_ns
    cdef bint downstream_gone, is_waiting
    cdef void start(self, Transport downstream, const char* data, Py_ssize_t size)
    cdef void attempt(self)
    cdef void give_up(self, str error)
    cdef void settle(self)
