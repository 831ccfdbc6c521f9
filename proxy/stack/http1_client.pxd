# A connection to an endpoint that speaks HTTP/1.
from proxy.io.transport cimport Transport
from proxy.stack.http1_exchange cimport HTTP1Exchange, Upstream
from proxy.wire.http1 cimport MessageReader


cdef class ConnectionObserver:
    """Who is told how connections of an endpoint fare."""
    cdef void connection_opened(self, HTTP1Client client)
    cdef void connection_failed(self, HTTP1Client client, object reason)
    cdef void connection_idle(self, HTTP1Client client)
    cdef void connection_gone(self, HTTP1Client client)


cdef class HTTP1Client(Upstream):
    cdef MessageReader reader
    cdef ConnectionObserver observer
    cdef bint is_open, is_idle, peer_is_tulle
    cdef long long idle_since_ns
    cdef void detach(self)
    cdef void broken(self, str error, int status, bint unprocessed)
    cdef void complete(self)
    cdef void discard(self, const char* cursor, const char* end)
    cdef void upgrade(self, const char* rest, Py_ssize_t size)
