# One request and its response, whatever version of HTTP it is in.
#
#   server side --dispatch--> Dispatcher (balance) --send--> pool --begin--> client side
#   what it is, how far it has come and what it counts as is here; bytes are in http1_exchange and http2_exchange
from libc.stdint cimport int64_t

from proxy.stack.endpoint cimport Endpoint
from proxy.telemetry.counters cimport RequestSeries
from proxy.telemetry.tally cimport Tally
from proxy.wire.http1 cimport Method

cdef enum:
    MAX_REPLAY = 65536   # bytes of a request's body kept so that it can be sent again (Linkerd's 64 KiB)


cdef class Dispatcher:
    cdef void dispatch(self, Exchange exchange)
    cdef void forget(self, Exchange exchange)                              # stop waiting for an endpoint


cdef class Exchange(Tally):
    cdef Dispatcher dispatcher
    cdef Endpoint endpoint
    cdef Endpoint avoid              # failed once; tried again only if there is no other
    cdef bint is_http2
    cdef bint is_active, request_complete, response_started, is_replayable
    cdef bint is_sent                # has begun to leave for `endpoint`
    cdef bint waiting                # for an endpoint, or (endpoint is set) for a connection to it
    cdef bint latency_taken
    cdef Method method
    cdef bint is_idempotent
    cdef bint is_unreached           # refused before any application can have seen it
    cdef int attempts, status
    cdef int64_t started_ns, waiting_since_ns
    cdef RequestSeries counted_as    # set by who routes; None counts it under its endpoint
    cdef RequestSeries requests
    # What a Router may look at; valid while it routes.
    cdef const char* path
    cdef int path_size
    cdef const char* require_id
    cdef int require_id_size

    cdef void renew(self)
    cdef void sent(self, int64_t now_ns)
    cdef void answered(self, int status, int64_t now_ns)
    cdef void body_began(self, int64_t now_ns)
    cdef void finished(self, str error, int64_t now_ns)
    cdef bint may_retry(self, bint unprocessed)
    cdef void cancel(self)
    cdef void lost(self, str error, int status, bint unprocessed)
    # By version:
    cdef void refuse(self, int status, str error)                          # answered by the proxy itself
    cdef void abandon(self)                                                # the client side is no longer listened to
