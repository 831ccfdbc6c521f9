# An accepted connection that speaks HTTP/1.
from proxy.io.transport cimport Transport
from proxy.stack.buffer cimport Buffer
from proxy.stack.http1_exchange cimport Downstream, HTTP1Exchange
from proxy.stack.patience cimport Patience
from proxy.stack.routing cimport ConnectionSet, Router
from proxy.wire.http1 cimport MessageReader


cdef class HTTP1Server(Downstream):
    cdef MessageReader reader
    cdef HTTP1Exchange exchange
    cdef Router router
    cdef ConnectionSet connections
    cdef Buffer out, backlog
    cdef object on_end
    cdef Patience patience           # None until a request comes in more than one piece
    cdef void leave(self)
    cdef bint must_close, must_close_after, is_draining, is_processing
    cdef bint client_ended           # it sends no more; what it has sent is still answered
    cdef bint awaits_continue        # the client may not send its body before it is told to
    cdef bint request_begun, request_ended, request_chunked, response_complete, response_chunked
    cdef int request_minor_version
    cdef void start(self, Transport transport)
    cdef void process(self, const char* data, Py_ssize_t size)
    cdef void process_backlog(self)
    cdef void begin_request(self)
    cdef void refuse_unread(self, int status, str error)
    cdef void wait_for_more(self)
    cdef void nothing_follows(self)
    cdef void abort_all(self)
    cdef void next_request(self)
    cdef void end(self, bint has_said_all=*)
    cpdef void drain(self)
