# One request and its response, whatever version of HTTP it is in.
#
#   server side --dispatch--> Dispatcher (balance) --send--> pool --begin--> client side
#   what it is, how far it has come and what it counts as is here; bytes are in http1_exchange and http2_exchange
from libc.stdint cimport int64_t, uint32_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.breaker cimport Breaker, Outcome
from proxy.stack.deadlines cimport Deadlines, Late, Lateness, Timeouts
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.retry cimport Fault, RetryPolicy
from proxy.telemetry.counters cimport RequestSeries
from proxy.telemetry.tally cimport Tally
from proxy.wire.http1 cimport Method

cdef enum:
    MAX_REPLAY = 65536   # bytes of a request's body kept so that it can be sent again (Linkerd's 64 KiB)


cdef class Dispatcher:
    cdef void dispatch(self, Exchange exchange)
    cdef void forget(self, Exchange exchange)                              # stop waiting for an endpoint
    cdef bint is_ready(self)                                               # there is an endpoint to send to


cdef class Flight:
    """How many requests of one direction are in hand."""
    cdef readonly int count, limit
    cdef bint admits(self, Exchange exchange)


cdef class Terms:
    """What a route asks of the proxy for its requests; None of either is nothing."""
    cdef readonly RetryPolicy retry
    cdef readonly Timeouts timeouts


cdef class Pause(Timer):
    """Between two tries."""
    cdef Exchange exchange


cdef class Care(Late):
    """What a request whose route has terms needs besides."""
    cdef Exchange exchange
    cdef RetryPolicy policy          # None: no retry
    cdef Reactor reactor
    cdef Deadlines deadlines
    cdef Pause pause                 # made for the first retry
    cdef int retries
    cdef void end(self, int64_t now_ns)


cdef class Exchange(Tally):
    cdef Dispatcher dispatcher
    cdef Endpoint endpoint
    cdef Endpoint avoid              # failed once; tried again only if there is no other
    cdef bint is_http2
    cdef bint is_active, request_complete, response_started, is_replayable
    cdef bint is_sent                # has begun to leave for `endpoint`
    cdef bint waiting                # for an endpoint, for a connection to it (endpoint is set), or for the next try
    cdef bint latency_taken
    cdef Method method
    cdef bint is_idempotent
    cdef bint is_unreached           # refused before any application can have seen it
    cdef int attempts, status
    cdef int64_t started_ns, waiting_since_ns
    cdef RequestSeries counted_as    # set by who routes; None counts it under its endpoint
    cdef RequestSeries requests
    cdef Care care                   # None: its route has no terms
    cdef Flight flight               # None: not counted as in hand
    cdef Breaker breaker             # that waits for the outcome of this try, or None
    cdef uint32_t ticket             # of the breaker
    cdef int64_t penalty_ns          # what this answer counts as at least
    # What a Router may look at; valid while it routes.
    cdef const char* path
    cdef int path_size
    cdef const char* require_id
    cdef int require_id_size

    cdef void renew(self)
    cdef void attend(self, Terms terms, Reactor reactor)
    cdef void sent(self, int64_t now_ns)
    cdef void answered(self, int status, int64_t now_ns)
    cdef void body_began(self, int64_t now_ns)
    cdef void finished(self, str error, int64_t now_ns)
    cdef bint may_retry(self, bint unprocessed)
    cdef void cancel(self)
    cdef void lost(self, str error, int status, bint unprocessed)
    # By the terms of its route:
    cdef bint goes_again(self, Fault fault, int status)
    cdef void again(self, Endpoint failed)
    cdef void late(self, Lateness which)
    cdef void stop_waiting(self)
    # For the breaker of its endpoint:
    cdef void judge(self, str error, int64_t now_ns)
    cdef Outcome outcome(self, str error)
    # By version:
    cdef void refuse(self, int status, str error)                          # answered by the proxy itself
    cdef void abandon(self)                                                # the client side is no longer listened to
    cdef void rewind(self)                                                 # nothing of it is with a client side
    cdef void break_off(self)                                              # its response ends here, and is not whole
