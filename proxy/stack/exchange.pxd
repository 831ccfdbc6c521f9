# One request and its response, and the three parties that know it.
#
#   Downstream (accepted connection) --submit--> Dispatcher --begin--> Upstream (connection to an endpoint)
#   Downstream <------------- response, piece by piece ------------------ Upstream
from libc.stdint cimport int64_t

from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
from proxy.stack.endpoint cimport Endpoint
from proxy.telemetry.counters cimport RequestSeries
from proxy.wire.http1 cimport Method

cdef enum:
    MAX_REPLAY = 65536   # bytes of a request kept so that it can be sent again (Linkerd's 64 KiB)


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


cdef class Upstream(Protocol):
    cdef Transport transport
    cdef Endpoint endpoint
    cdef Exchange exchange
    cdef void begin(self, Exchange exchange)
    cdef void request_push(self)
    cdef void abandon(self)                                                # the downstream is gone


cdef class Dispatcher:
    cdef void dispatch(self, Exchange exchange)
    cdef void forget(self, Exchange exchange)                              # stop waiting for an endpoint


cdef class Exchange:
    cdef Downstream downstream
    cdef Upstream upstream           # has been given the request
    cdef Dispatcher dispatcher
    cdef Endpoint endpoint
    cdef Endpoint avoid              # failed once; tried again only if there is no other
    cdef Buffer request              # head and body, from `sent` on still to be written
    cdef Py_ssize_t sent
    cdef bint is_active, request_complete, response_started, is_replayable
    cdef bint waiting                # for an endpoint, or (endpoint is set) for a connection to it
    cdef bint latency_taken, keeps_alive, wants_upgrade
    cdef Method method
    cdef bint is_idempotent
    cdef bint is_unreached           # refused before any application can have seen it
    cdef int attempts, status
    cdef int64_t started_ns, waiting_since_ns
    cdef RequestSeries counted_as    # set by who routes; None counts it under its endpoint
    cdef RequestSeries requests
    cdef int grpc_status             # NOT_GRPC, GRPC_UNSAID, or what headers or trailers said: see classify
    cdef void start(self, Downstream downstream)
    cdef void sent_to(self, Upstream upstream, int64_t now_ns)
    cdef void answered(self, int status, int64_t now_ns)
    cdef void body_began(self, int64_t now_ns)
    cdef void finished(self, str error, int64_t now_ns)
    cdef bint may_retry(self, bint unprocessed)
    cdef void cancel(self)
    cdef void lost(self, str error, int status, bint unprocessed)
