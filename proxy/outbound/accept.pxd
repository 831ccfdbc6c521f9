# The steps of an outbound connection.
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Reactor
from proxy.io.transport cimport Transport
from proxy.outbound.discover cimport Destination, Destinations, Waiter
from proxy.stack.detect cimport Detected
from proxy.stack.exchange cimport Flight
from proxy.stack.routing cimport ConnectionSet, Refusal, Router


cdef class Outbound(Acceptor):
    cdef readonly Reactor reactor
    cdef readonly Destinations destinations
    cdef readonly ConnectionSet connections
    cdef readonly Flight flight
    cdef readonly object settings, registry, log
    cdef frozenset own_ports
    cdef int64_t stall_ns


cdef class OutboundConnection(Waiter):
    cdef Outbound outbound
    cdef Destination destination
    cdef Transport transport
    cdef Address original
    cdef bint is_gone
    cdef bint has_failed             # opaque, and its endpoints could not be reached
    cdef void forward_opaque(self, const char* data, Py_ssize_t size)
    cdef void serve_http1(self, const char* data, Py_ssize_t size)
    cdef void serve_http2(self, const char* data, Py_ssize_t size)


cdef class OutboundDetected(Detected):
    cdef OutboundConnection connection


cdef class OutboundRouter(Router):
    cdef OutboundConnection connection
    cdef Refusal require_identity(self, str wanted)
    cdef void tell(self, str event, int status, str error)
