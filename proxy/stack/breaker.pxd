# When an endpoint that keeps failing is left alone, and when it is tried again.
#
#   ADMITTING --too many failures, floor allows--> SHUT --penalty over, a request enters--> PROBING
#       ^                                            ^------------ the probe fails ------------+
#       +------------------------------------------------ the probe succeeds -----------------+
from libc.stdint cimport int64_t, uint32_t

cdef enum Outcome:
    SUCCEEDED
    FAILED       # by the classifier: 5xx, a failing grpc-status, a connection that broke
    LIMITED      # 429 or RESOURCE_EXHAUSTED: the endpoint works, and asks for less
    ABANDONED    # the caller went away first: says nothing about the endpoint

cdef enum Gate:
    ADMITTING
    SHUT
    PROBING

cdef enum:
    SLOTS = 10   # of the success-rate window


cdef class BreakerPolicy:
    """What trips a breaker and for how long. Times in nanoseconds; 0 failures or a threshold of 0 turns a rule off."""
    cdef readonly int max_failures
    cdef readonly double success_threshold
    cdef readonly int min_requests
    cdef readonly int64_t min_penalty_ns, max_penalty_ns, window_ns
    cdef readonly double jitter


cdef class Ejections:
    """The breakers of one balancer that are not admitting, held below a part of its endpoints."""
    cdef readonly int endpoints
    cdef list ejected                # in the order in which they shut
    cdef int allowed(self)
    cdef bint eject(self, Breaker breaker)
    cdef void readmit(self, Breaker breaker)


cdef class Breaker:
    cdef BreakerPolicy policy
    cdef Ejections ejections
    cdef Gate gate
    cdef readonly int failures       # in a row
    cdef readonly int trips          # since the last success of a probe: the exponent of the penalty
    cdef readonly int64_t shut_until_ns
    cdef readonly int64_t probing_since_ns
    cdef uint32_t generation         # of the gate: answers to requests of an older one are ignored
    cdef int good[SLOTS]
    cdef int total[SLOTS]
    cdef int64_t slot_number         # of the current slot since the epoch of the clock
    cdef bint admits(self, int64_t now_ns)
    cdef uint32_t enter(self, int64_t now_ns)
    cdef void observe(self, uint32_t ticket, Outcome outcome, int64_t now_ns)
    cdef void answers(self, uint32_t ticket)
    cdef void count(self, Outcome outcome, int64_t now_ns)
    cdef bint is_tripped(self)
    cdef void shut(self, int64_t now_ns)
    cdef void reopen(self)
    cdef void leave(self)
