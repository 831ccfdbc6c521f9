# A connection to an endpoint that speaks HTTP/2.
from libc.stdint cimport int32_t, int64_t

from proxy.stack.endpoint cimport Endpoint
from proxy.stack.http2_exchange cimport ClientSide, HTTP2Exchange


cdef class SessionObserver:
    """Who is told how connections of an endpoint fare."""
    cdef void session_opened(self, HTTP2Client client)
    cdef void session_failed(self, HTTP2Client client, object reason)
    cdef void session_has_room(self, HTTP2Client client)
    cdef void session_gone(self, HTTP2Client client)                       # takes no more streams


cdef class HTTP2Client(ClientSide):
    cdef Endpoint endpoint
    cdef SessionObserver observer
    cdef HTTP2Exchange current       # whose section is being received; None for a stream nobody listens to
    cdef bint is_open                # takes streams
    cdef bint is_full                # had no room for a stream
    cdef bint peer_is_tulle
    cdef bint marked_unreached       # the section says that no application has seen the request
    cdef bint has_room(self)
    cdef void retire(self)
    cdef HTTP2Exchange listener(self, int32_t stream_id)
    cdef int response_head(self, HTTP2Exchange exchange, bint end_stream) except -1
    cdef void discard(self, HTTP2Exchange exchange, bint end_stream)
    cdef int response_ended(self, HTTP2Exchange exchange) except -1
    cdef void stream_failed(self, HTTP2Exchange exchange, str error, int status, bint unprocessed, int error_code)
