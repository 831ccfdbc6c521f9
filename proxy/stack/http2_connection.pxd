# One HTTP/2 connection on one Transport: reading, writing, and its end. What streams are for is in http2_server and
# http2_client.
from libc.stdint cimport int32_t, int64_t, uint32_t

from proxy.io.reactor cimport Pollable, Reactor, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.wire.field_block cimport FieldBlock
from proxy.wire.http2 cimport Session


cdef enum:
    MAX_HELD = 1048576           # bytes of bodies held on one connection before its window closes
    CONNECTION_WINDOW = 4194304  # larger than MAX_HELD: what is in flight when the window closes

cdef int64_t KEEPALIVE_NS
cdef int64_t PRESSED_NS


cdef class ConnectionProtocol(Protocol):
    cdef HTTP2Connection connection


cdef class Flusher(Pollable):
    cdef HTTP2Connection connection


cdef class KeepaliveTimer(Timer):
    cdef HTTP2Connection connection


cdef class HTTP2Connection(Session):
    cdef Reactor reactor
    cdef Transport transport         # None once the connection is over
    cdef dict streams                # stream id -> HTTP2Exchange
    cdef FieldBlock section          # the header section being received
    cdef Flusher flusher
    cdef KeepaliveTimer keepalive
    cdef int64_t heard_ns
    cdef int64_t check_ns            # between two looks at how peer and readers do
    cdef Py_ssize_t unsent           # bytes that waited for the peer when it was looked at last
    cdef bint awaits_pong
    cdef bint reads_always           # also while its own writes are held up
    cdef bint is_watched             # looked at often, since its window is about to close
    cdef Py_ssize_t held             # bytes of bodies that were not handed on yet
    cdef Py_ssize_t withheld         # of them, those the connection's window was not given back for
    cdef void adopt(self, Transport transport)
    cdef void received(self, const char* data, Py_ssize_t size)
    cdef void touch(self)
    cdef void flush(self)
    cdef void stream_opened(self)
    cdef void heard(self)
    cdef void check_alive(self)
    cdef void resume(self, int32_t stream_id)
    cdef int hold(self, Py_ssize_t size) except -1
    cdef bint is_pressed(self)
    cdef void pressed(self)
    cdef void handed_on(self, int32_t stream_id, Py_ssize_t size)
    cdef void let_go(self, Py_ssize_t size)
    cdef void reset_stream(self, int32_t stream_id, uint32_t error_code)
    cdef void close(self)
    cdef void give_up(self, str error)
    cdef void leave(self, str error)
    # By side:
    cdef void connected(self, Transport transport)
    cdef void dial_failed(self, object reason)
    cpdef void drain(self)           # carry no more than what is under way
    cdef void over(self, str error)  # nothing more will come or go: streams that are left end with `error`
