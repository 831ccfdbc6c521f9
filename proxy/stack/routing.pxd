# What is decided per request, and what is open.
from libc.stdint cimport int64_t

from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.telemetry.access_log cimport AccessLog


cdef class Refusal:
    """Why a request is answered by the proxy itself."""
    cdef readonly int status
    cdef readonly str error
    cdef readonly bint close


cdef class Router:
    """Decides, per request, whether and as what it goes on."""
    cdef Dispatcher dispatcher
    cdef bytes client_id             # sent on as l5d-client-id; empty for none
    cdef bint shows_errors           # l5d-proxy-error may be seen by this client
    cdef bint strips_client_id
    cdef AccessLog access_log        # None: no lines
    cdef str client, identity        # who is named in them
    cdef int64_t stall_ns            # how long a client may take nothing of a response that waits for it
    cdef Refusal route(self, Exchange exchange)
    cdef void refused(self, int status, str error)
    cdef void broken_off(self, int status, str error)
    cdef void ended(self, str error)


cdef class ConnectionSet:
    """The open downstream connections of the process: what drains, and how long a client may take."""
    cdef readonly set connections
    cdef int64_t head_ns, body_ns
    cdef readonly bint is_draining
    cdef object on_empty
    cdef void add(self, object connection)
    cdef void discard(self, object connection)
