# cython: language_level=3
"""Lets Python drive the breakers, budgets, retry policies and deadlines, which only compiled code can call.

Times are seconds.
"""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor
from proxy.stack cimport breaker, budget, deadlines, retry

OUTCOMES = {
    "succeeded": breaker.SUCCEEDED, "failed": breaker.FAILED, "limited": breaker.LIMITED,
    "abandoned": breaker.ABANDONED,
}
VERDICTS = {
    retry.KEEP: "keep", retry.RETRY: "retry", retry.LIMIT_EXCEEDED: "limit exceeded", retry.OVERFLOW: "overflow",
    retry.TOO_LARGE: "too large",
}
FAULTS = {
    "answered": retry.ANSWERED, "timed out": retry.TIMED_OUT, "unserved": retry.UNSERVED,
}
LATENESS = {
    deadlines.IN_TIME: "in time", deadlines.REQUEST_LATE: "request", deadlines.RESPONSE_LATE: "response",
    deadlines.HEADERS_LATE: "headers", deadlines.IDLE_LATE: "idle",
}


cdef int64_t ns(double seconds):
    return <int64_t>(seconds * 1e9)


cdef class Breaker:
    cdef readonly breaker.Breaker inner

    def __init__(self, policy, ejections):
        self.inner = breaker.Breaker(policy, ejections)

    def admits(self, double now):
        return bool(self.inner.admits(ns(now)))

    def enter(self, double now):
        return self.inner.enter(ns(now))

    def observe(self, ticket, outcome, double now):
        self.inner.observe(ticket, OUTCOMES[outcome], ns(now))

    def request(self, outcome, double now):
        """One request that is answered at once."""
        self.observe(self.enter(now), outcome, now)

    def answers(self, ticket):
        self.inner.answers(ticket)

    def leave(self):
        self.inner.leave()

    @property
    def state(self):
        return self.inner.state

    @property
    def shut_until(self):
        return self.inner.shut_until_ns / 1e9


def deposit(budget.RetryBudget given, double now):
    given.deposit(ns(now))


def withdraw(budget.RetryBudget given, double now):
    return bool(given.withdraw(ns(now)))


def balance(budget.RetryBudget given, double now):
    return given.balance(ns(now))


def decide(retry.RetryPolicy policy, fault, int status=0, int grpc=retry.NO_GRPC_STATUS, int retries=0,
           bint kept=True, bint ready=True, double now=0.0):
    return VERDICTS[policy.decide(FAULTS[fault], status, grpc, retries, kept, ready, ns(now))]


def backoff(retry.RetryPolicy policy, int retries):
    return policy.backoff(retries) / 1e9


def timeout_of_try(retry.RetryPolicy policy, int retries):
    return policy.timeout_of_try(retries) / 1e9


cdef class Owner(deadlines.Late):
    cdef list said

    cdef void late(self, deadlines.Lateness which):
        self.said.append(LATENESS[which])


cdef class Deadlines:
    """One exchange; what was late is in `said`."""

    cdef deadlines.Deadlines inner
    cdef readonly list said
    cdef Owner owner
    cdef Reactor reactor

    def __init__(self, reactor, timeouts):
        self.said = []
        self.reactor = reactor
        self.inner = deadlines.Deadlines()
        self.owner = Owner()
        self.owner.said = self.said
        self.inner.begin(self.reactor, timeouts, self.owner, self.reactor.time_ns())

    def try_begins(self, double seconds):
        self.inner.try_begins(ns(seconds), self.reactor.time_ns())

    def request_sent(self):
        self.inner.request_sent(self.reactor.time_ns())

    def headers_came(self):
        self.inner.headers_came()

    def moved_at(self, double after):
        """Something moved that long after the beginning."""
        self.inner.moved(self.inner.began_ns + ns(after))

    def age(self):
        """Seconds since the beginning."""
        return (self.reactor.time_ns() - self.inner.began_ns) / 1e9

    def end(self):
        self.inner.end()

    def judge(self, double after):
        """What would be late that long after the beginning."""
        return LATENESS[self.inner.judge(self.inner.began_ns + ns(after))]

    @property
    def armed(self):
        return self.inner.slot >= 0
