"""A request in HTTP/1 and its response: the bytes of the request, and who has it."""
from libc.stdint cimport int64_t

from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
from proxy.stack.exchange cimport Exchange


cdef class Downstream(Protocol):
    """The accepted side. Implemented by `http1_server`."""

    cdef void response_head(self, Upstream upstream):
        pass

    cdef void response_data(self, const char* data, Py_ssize_t size):
        pass

    cdef void response_trailers(self):
        pass

    cdef void response_end(self, Upstream upstream):
        pass

    cdef void response_flush(self):
        pass

    cdef void response_broken(self):
        pass

    cdef void refuse(self, int status, str error, bint close):
        pass

    cdef void request_writable(self):
        pass

    cdef void upgraded(self, Transport upstream):
        pass

    cdef bint is_late(self, bint in_head):
        return False


cdef class Upstream(Protocol):
    """The dialled side. Implemented by `http1_client`."""

    cdef void begin(self, HTTP1Exchange exchange):
        pass

    cdef void request_push(self):
        pass

    cdef void abandon(self):
        pass


cdef class HTTP1Exchange(Exchange):
    """Reused for every request of one downstream connection, which has one at a time."""

    def __cinit__(self):
        self.request = Buffer()

    cdef void start(self, Downstream downstream):
        self.renew()
        self.request_began(downstream.transport.reactor.now_ns)
        self.downstream = downstream
        self.upstream = None
        self.wants_upgrade = False
        self.sent_size = 0
        self.request.clear()

    cdef void finished(self, str error, int64_t now_ns):
        Exchange.finished(self, error, now_ns)
        self.upstream = None

    cdef void rewind(self):
        self.upstream = None

    # A downstream that leaves lets go of its exchange, and would be gone in the middle of its own method.

    cdef void break_off(self):
        cdef Downstream downstream = self.downstream
        downstream.response_broken()

    cdef void refuse(self, int status, str error):
        cdef Downstream downstream = self.downstream
        downstream.refuse(status, error, True)

    cdef void abandon(self):
        cdef Upstream upstream = self.upstream
        self.upstream = None
        if upstream is not None:
            upstream.abandon()
