# An accepted connection that speaks HTTP/1.
from proxy.io.transport cimport Transport
from proxy.stack.buffer cimport Buffer
from proxy.stack.exchange cimport Dispatcher, Downstream, Exchange
from proxy.wire.http1 cimport MessageReader


cdef class Refusal:
    """Why a request is answered by the proxy itself."""
    cdef readonly int status
    cdef readonly str error
    cdef readonly bint close


cdef class Router:
    """Decides, per request, whether and as what it goes on. The head is in http1.head."""
    cdef Dispatcher dispatcher
    cdef bytes extra_fields          # written into every request head: `name: value\r\n`, or empty
    cdef bint shows_errors           # l5d-proxy-error may be seen by this client
    cdef bint strips_client_id
    cdef Refusal route(self, Exchange exchange)
    cdef void refused(self, int status, str error)


cdef class ConnectionSet:
    """The open downstream connections of the process: what drains."""
    cdef readonly set connections
    cdef readonly bint is_draining
    cdef object on_empty
    cdef void add(self, object connection)
    cdef void discard(self, object connection)


cdef class HTTP1Server(Downstream):
    cdef MessageReader reader
    cdef Exchange exchange
    cdef Router router
    cdef ConnectionSet connections
    cdef Buffer out, backlog
    cdef object on_end
    cdef void leave(self)
    cdef bint must_close, must_close_after, is_draining, is_processing
    cdef bint request_begun, request_ended, request_chunked, response_complete, response_chunked
    cdef int request_minor_version
    cdef void start(self, Transport transport)
    cdef void process(self, const char* data, Py_ssize_t size)
    cdef void process_backlog(self)
    cdef void begin_request(self)
    cdef void write_request_head(self, Buffer into)
    cdef void refuse_malformed(self)
    cdef void abort_all(self)
    cdef void next_request(self)
    cdef void end(self)
    cdef void drain(self)
