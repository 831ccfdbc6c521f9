"""The retry policy of a route: pure. Whether one try more is made of a request that failed, after which pause, and how
long each try may take.

Linkerd's rules: statuses and gRPC codes are configured; a try that got no response head in time and REFUSED_STREAM
count as well. Where no endpoint is ready there is no retry, so that neither failfast nor load shed is answered by more
of the same. The last try has no time limit of its own. A budget is optional, as Linkerd's policy routes have none and
its service profiles do.

What no application can have seen is sent again without any policy: that is the exchange's business, not this one's.
"""
from libc.stdint cimport int64_t

from proxy.stack.budget cimport RetryBudget

import random

cdef enum:
    MAX_DOUBLINGS = 20  # of the pause: far over any maximum, and no overflow


cdef class RetryPolicy:
    """Seconds in, nanoseconds kept. Defaults are Linkerd's: one retry, pauses of 25 ms to 250 ms with full jitter, no
    limit per try (0), no budget. Raises ValueError naming what cannot be."""

    def __init__(self, statuses=(), grpc_codes=(), int max_retries=1, double try_timeout=0.0,
                 double min_backoff=0.025, double max_backoff=0.25, double jitter=1.0, RetryBudget budget=None):
        if max_retries < 0 or try_timeout < 0.0:
            raise ValueError(f"{max_retries} retries of {try_timeout:g} s each cannot be")
        if not 0.0 < min_backoff <= max_backoff or jitter < 0.0:
            raise ValueError(f"pauses of {min_backoff:g} s to {max_backoff:g} s with jitter {jitter:g} are no range")
        for status in statuses:
            if not 100 <= status <= 599:
                raise ValueError(f"{status} is no HTTP status")
            self.statuses[<int>status] = True
        for code in grpc_codes:
            if not 0 < code <= 16:
                raise ValueError(f"{code} is no gRPC code that tells of a failure")
            self.grpc_codes |= 1 << <int>code
        self.max_retries = max_retries
        self.try_timeout_ns = <int64_t>(try_timeout * 1e9)
        self.min_backoff_ns = <int64_t>(min_backoff * 1e9)
        self.max_backoff_ns = <int64_t>(max_backoff * 1e9)
        self.jitter = jitter
        self.budget = budget

    cdef bint wants(self, Fault fault, int status, int grpc_status):
        """Whether this is a failure that the route wants tried again."""
        if fault != ANSWERED:
            return True
        if grpc_status >= 0:
            return grpc_status <= 16 and (self.grpc_codes >> grpc_status) & 1
        return 100 <= status <= 599 and self.statuses[status]

    cdef Verdict decide(self, Fault fault, int status, int grpc_status, int retries, bint is_kept, bint is_ready,
                        int64_t now_ns):
        """`retries` were made before; `is_kept` says that the whole request can be sent again, `is_ready` that there
        is an endpoint to send it to. Pays for a RETRY.

        `grpc_status` is NO_GRPC_STATUS where the answer has none (yet).
        """
        if not self.wants(fault, status, grpc_status):
            return KEEP
        if not is_kept:
            return TOO_LARGE
        if retries >= self.max_retries:
            return LIMIT_EXCEEDED
        if not is_ready or self.budget is not None and not self.budget.withdraw(now_ns):
            return OVERFLOW
        return RETRY

    cdef int64_t backoff(self, int retries):
        """Nanoseconds to wait before the next try, after `retries` of them: the pause doubles up to its maximum, plus
        up to `jitter` of it, the whole never over the maximum."""
        cdef int64_t base = self.max_backoff_ns
        cdef int doublings = min(retries, MAX_DOUBLINGS)
        if self.min_backoff_ns <= base >> doublings:
            base = self.min_backoff_ns << doublings
        base += <int64_t>(base * self.jitter * <double>random.random())
        return min(base, self.max_backoff_ns)

    cdef int64_t timeout_of_try(self, int retries):
        """How long the response head of the next try may take, 0 for as long as it likes: the last try is not cut."""
        return self.try_timeout_ns if retries < self.max_retries else 0

    cdef void settled(self, int64_t now_ns):
        """A request ended without another try: it pays into the budget."""
        if self.budget is not None:
            self.budget.deposit(now_ns)
