# A request in HTTP/1 and its response, and the two parties that know it.
#
#   Downstream (accepted connection) <-- HTTP1Exchange --> Upstream (connection to an endpoint)
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Exchange


cdef class Downstream(Protocol):
    cdef Transport transport
    cdef void response_head(self, Upstream upstream)                       # the head is in http1.head
    cdef void response_data(self, const char* data, Py_ssize_t size)
    cdef void response_trailers(self)
    cdef void response_end(self, Upstream upstream)
    cdef void response_flush(self)
    cdef void response_broken(self)                                        # cut short after it had begun
    cdef void refuse(self, int status, str error, bint close)              # answered by the proxy itself
    cdef void request_writable(self)
    cdef void upgraded(self, Transport upstream)                           # become a tunnel to `upstream`
    cdef bint is_late(self, bint in_head)                                  # ended because its client owes bytes


cdef class Upstream(Protocol):
    cdef Transport transport
    cdef Endpoint endpoint
    cdef HTTP1Exchange exchange
    cdef void begin(self, HTTP1Exchange exchange)
    cdef void request_push(self)
    cdef void abandon(self)                                                # the downstream is gone


cdef class HTTP1Exchange(Exchange):
    cdef Downstream downstream
    cdef Upstream upstream           # has been given the request
    cdef Buffer request              # head and body, from `sent_size` on still to be written
    cdef Py_ssize_t sent_size
    cdef bint keeps_alive, wants_upgrade
    cdef void start(self, Downstream downstream)
