# An accepted connection that speaks HTTP/2.
from libc.stdint cimport int32_t, int64_t

from proxy.io.reactor cimport Timer
from proxy.io.transport cimport Transport
from proxy.stack.http2_exchange cimport HTTP2Exchange, ServerSide
from proxy.stack.routing cimport ConnectionSet, Router
from proxy.wire.field_block cimport FieldBlock


cdef class DrainTimer(Timer):
    cdef HTTP2Server server


cdef class HTTP2Server(ServerSide):
    cdef Router router
    cdef ConnectionSet connections
    cdef object on_end
    cdef HTTP2Exchange current       # whose section is being received
    cdef DrainTimer drain_timer
    cdef Py_ssize_t heads            # bytes of heads that wait for a response
    cdef bint is_draining, in_trailers, has_two_hosts
    cdef list to_stop                # streams whose response is out before their request was in
    cdef void start(self, Transport transport)
    cdef int request_head(self, HTTP2Exchange exchange, bint end_stream) except -1
    cdef void let_go_of_head(self, HTTP2Exchange exchange)
    cdef void drained(self)
    cdef void stop_request(self, int32_t stream_id)
    cpdef void drain(self)
