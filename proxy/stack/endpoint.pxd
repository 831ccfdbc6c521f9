# One address that requests can be sent to, with what it has cost so far.
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.stack.breaker cimport Breaker
from proxy.telemetry.counters cimport RequestSeries, TCPSeries


cdef class Penalty:
    """What an answer that asks for less counts as in the latency that endpoints are chosen by."""
    cdef readonly int64_t least_ns, most_ns
    cdef readonly bint takes_failures
    cdef int64_t of(self, int status, int grpc_status, int64_t hint_ns)


cdef class Endpoint:
    cdef readonly Address address
    cdef readonly str identity       # to be proven by the peer; None for plaintext
    cdef readonly str no_tls_reason  # why there is no identity
    cdef readonly bint is_opaque
    cdef readonly tuple labels
    cdef double cost_ns
    cdef int64_t stamp_ns
    cdef readonly int pending
    cdef int failures
    cdef int64_t blocked_until_ns
    cdef Breaker breaker             # None: never left alone, however its answers fail
    cdef Penalty penalty             # None: its answers count as long as they take
    cdef public bint is_removed
    # Kept here for the pools. HTTP/1:
    cdef list idle                   # pooled connections, most recently used last
    cdef list waiters                # exchanges that wait for a connection, first come first served
    cdef int dialing                 # connections being made
    # HTTP/2:
    cdef list sessions               # connections that take streams
    cdef list stream_waiters
    cdef int session_dialing
    cdef RequestSeries requests
    cdef TCPSeries connections
    cdef void count_under(self, RequestSeries requests, TCPSeries connections)
    cdef void retire(self)
    cdef double load(self, int64_t now_ns)
    cdef void sample(self, int64_t now_ns, int64_t elapsed_ns)
    cdef bint is_ready(self, int64_t now_ns)
    cdef void failed(self, int64_t now_ns)
    cdef void succeeded(self)
