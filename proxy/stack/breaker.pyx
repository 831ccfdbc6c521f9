"""Circuit breakers: after how many failures an endpoint is left alone, and when it is tried again. Pure: time is an
argument, and nothing here knows what a request is.

The rules are Linkerd's failure accrual: consecutive failures, or a success rate over a window. Two things differ on
purpose. A mass failure does not empty a balancer: at most half of its endpoints are shut at a time, since an
application that fails everywhere fails no less through the one endpoint that is left. And an answer to a request
that was sent before the gate shut is never taken for the probe's.
"""
from libc.stdint cimport int64_t, uint32_t

import random

# A probe whose answer has not come after this long no longer keeps the next one out.
cdef int64_t PROBE_LIMIT_NS = 10_000_000_000

cdef enum:
    MAX_DOUBLINGS = 30  # of the penalty: beyond that it is far over any maximum, and shifting would overflow


cdef class BreakerPolicy:
    """Seconds in, nanoseconds kept. Linkerd's defaults: 7 failures in a row, 1 s to 60 s, jitter 0.5.

    With `success_threshold` above 0 the rate of success over `window` trips it too, once there were `min_requests`.
    Raises ValueError naming what cannot be.
    """

    def __init__(self, int max_failures=7, double min_penalty=1.0, double max_penalty=60.0, double jitter=0.5,
                 double success_threshold=0.0, double window=10.0, int min_requests=5):
        if max_failures < 0 or min_requests < 1:
            raise ValueError(f"max_failures {max_failures} and min_requests {min_requests} must be at least 0 and 1")
        if not 0.0 < min_penalty <= max_penalty:
            raise ValueError(f"penalties {min_penalty:g} s to {max_penalty:g} s are no range above 0")
        if not 0.0 <= jitter <= 100.0 or not 0.0 <= success_threshold <= 1.0:
            raise ValueError(f"jitter {jitter:g} or success rate {success_threshold:g} is out of range")
        if not 0.01 <= window <= 3600.0:
            raise ValueError(f"a window of {window:g} s is not between 10 ms and an hour")
        self.max_failures = max_failures
        self.min_penalty_ns = <int64_t>(min_penalty * 1e9)
        self.max_penalty_ns = <int64_t>(max_penalty * 1e9)
        self.jitter = jitter
        self.success_threshold = success_threshold
        self.window_ns = <int64_t>(window * 1e9)
        self.min_requests = min_requests

    def key(self):
        """Equal keys, equal policies."""
        return (
            self.max_failures, self.min_penalty_ns, self.max_penalty_ns, self.jitter, self.success_threshold,
            self.window_ns, self.min_requests,
        )

    def __eq__(self, other):
        return isinstance(other, BreakerPolicy) and self.key() == other.key()

    def __hash__(self):
        return hash(self.key())

    def __repr__(self):
        return f"BreakerPolicy{self.key()}"


cdef class Ejections:
    """The floor: of n endpoints n // 2 may be shut at a time, so that one alone is never."""

    def __init__(self, int endpoints=0):
        self.endpoints = endpoints
        self.ejected = []

    cdef int allowed(self):
        return self.endpoints // 2

    cdef bint eject(self, Breaker breaker):
        """Whether one more may be shut; counts it if so."""
        if len(self.ejected) >= self.allowed():
            return False
        self.ejected.append(breaker)
        return True

    cdef void readmit(self, Breaker breaker):
        if breaker in self.ejected:
            self.ejected.remove(breaker)

    def resize(self, int endpoints):
        """Discovery knows another number of endpoints: if too many are shut now, those shut longest come back."""
        self.endpoints = endpoints
        while len(self.ejected) > self.allowed():
            (<Breaker>self.ejected[0]).reopen()

    def __len__(self):
        return len(self.ejected)


cdef class Breaker:
    """One endpoint's. Every request that leaves for it `enter`s; the ticket comes back with the outcome."""

    def __init__(self, BreakerPolicy policy not None, Ejections ejections not None):
        self.policy = policy
        self.ejections = ejections

    cdef bint admits(self, int64_t now_ns):
        """Whether a request may be sent now. While probing none may, but for a probe that was never answered."""
        if self.gate == ADMITTING:
            return True
        if self.gate == SHUT:
            return now_ns >= self.shut_until_ns
        return now_ns - self.probing_since_ns >= PROBE_LIMIT_NS

    cdef uint32_t enter(self, int64_t now_ns):
        """A request is sent; through a gate whose penalty is over it is the probe."""
        if self.gate != ADMITTING and self.admits(now_ns):
            self.gate = PROBING
            self.probing_since_ns = now_ns
            self.generation += 1
        return self.generation

    cdef void observe(self, uint32_t ticket, Outcome outcome, int64_t now_ns):
        """How the request of that ticket ended."""
        if ticket != self.generation or self.gate == SHUT:
            return  # sent before the gate last moved: old news
        if self.gate == PROBING:
            if outcome == SUCCEEDED:
                self.reopen()
            elif outcome == ABANDONED:
                self.gate = SHUT  # its penalty is over: the next request is a probe again
                self.generation += 1
            else:
                self.shut(now_ns)
            return
        if outcome == ABANDONED:
            return
        self.count(outcome, now_ns)
        if outcome != SUCCEEDED and self.is_tripped() and self.ejections.eject(self):
            self.shut(now_ns)

    cdef void answers(self, uint32_t ticket):
        """The body of a response that is no failure so far has begun: enough for a probe, which a long stream would
        keep waiting for its end."""
        if self.gate == PROBING and ticket == self.generation:
            self.reopen()

    cdef void count(self, Outcome outcome, int64_t now_ns):
        cdef int64_t number, behind
        cdef int i
        if outcome == SUCCEEDED:
            self.failures = 0
        elif outcome == FAILED:
            self.failures += 1  # being asked for less is no failure in a row, and ends none
        if self.policy.success_threshold == 0.0:
            return
        number = now_ns // (self.policy.window_ns // SLOTS)
        behind = number - self.slot_number
        if behind > 0:
            for i in range(<int>min(behind, <int64_t>SLOTS)):
                self.good[(number - i) % SLOTS] = 0
                self.total[(number - i) % SLOTS] = 0
            self.slot_number = number
        i = <int>(self.slot_number % SLOTS)
        self.total[i] += 1
        if outcome == SUCCEEDED:
            self.good[i] += 1

    cdef bint is_tripped(self):
        cdef int good = 0
        cdef int total = 0
        cdef int i
        if self.policy.max_failures > 0 and self.failures >= self.policy.max_failures:
            return True
        if self.policy.success_threshold == 0.0:
            return False
        for i in range(SLOTS):
            good += self.good[i]
            total += self.total[i]
        return total >= self.policy.min_requests and good < self.policy.success_threshold * total

    cdef void shut(self, int64_t now_ns):
        """Linkerd's backoff: min * 2^n up to max, plus up to `jitter` of that, the whole capped at max."""
        cdef int64_t base = self.policy.max_penalty_ns
        if self.policy.min_penalty_ns <= base >> min(self.trips, MAX_DOUBLINGS):
            base = self.policy.min_penalty_ns << min(self.trips, MAX_DOUBLINGS)
        base += <int64_t>(base * self.policy.jitter * <double>random.random())
        self.shut_until_ns = now_ns + min(base, self.policy.max_penalty_ns)
        self.trips += 1
        self.gate = SHUT
        self.generation += 1

    cdef void reopen(self):
        """Admit again, with a clean slate."""
        cdef int i
        self.ejections.readmit(self)
        self.gate = ADMITTING
        self.generation += 1
        self.failures = 0
        self.trips = 0
        for i in range(SLOTS):
            self.good[i] = 0
            self.total[i] = 0

    cdef void leave(self):
        """The endpoint is gone: it counts no longer, and what is still said of it is old news."""
        self.ejections.readmit(self)
        self.generation += 1

    @property
    def state(self):
        """`admitting`, `shut` or `probing`."""
        return ("admitting", "shut", "probing")[<int>self.gate]

    def __repr__(self):
        return f"<Breaker {self.state} failures={self.failures} trips={self.trips}>"
