# Whether a request that failed is tried again, and when.
from libc.stdint cimport int64_t, uint32_t

from proxy.stack.budget cimport RetryBudget

cdef enum Verdict:
    KEEP            # the answer goes to the client
    RETRY
    LIMIT_EXCEEDED  # it would be tried again, had it not been so often already
    OVERFLOW        # it would be, were there budget or a ready endpoint left
    TOO_LARGE       # it would be, had its body been kept

cdef enum Fault:
    ANSWERED        # by the application, or by this proxy for it: status and, for gRPC, grpc-status say how
    TIMED_OUT       # no response head within the time of one try
    UNSERVED        # REFUSED_STREAM

cdef enum:
    NO_GRPC_STATUS = -1


cdef class RetryPolicy:
    """What a route may set. `statuses` has one flag per HTTP status, `grpc_codes` one bit per code."""
    cdef bint statuses[600]
    cdef uint32_t grpc_codes
    cdef readonly int max_retries
    cdef readonly int64_t try_timeout_ns, min_backoff_ns, max_backoff_ns
    cdef readonly double jitter
    cdef readonly RetryBudget budget
    cdef bint wants(self, Fault fault, int status, int grpc_status)
    cdef Verdict decide(self, Fault fault, int status, int grpc_status, int retries, bint is_kept, bint is_ready,
                        int64_t now_ns)
    cdef int64_t backoff(self, int retries)
    cdef int64_t timeout_of_try(self, int retries)
    cdef void settled(self, int64_t now_ns)
