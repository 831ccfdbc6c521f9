"""The counters of balancers: what entered, what waited and how long, what discovery changed, when failfast began. Text
is not here.

Balancers of one destination share a series (a Service has an address per family of IP), so that its gauges are sums
over those that live. A request that finds an endpoint at once costs one increment.
"""
from libc.stdint cimport int64_t

from proxy.telemetry.counters cimport Series

import time

QUEUE_BOUNDS = (0.0005, 0.005, 0.05, 0.5, 1.0, 3.0)
"""Seconds that a request waited for an endpoint."""

cdef int64_t[QUEUE_BUCKETS - 1] BOUNDS_NS
for _index, _bound in enumerate(QUEUE_BOUNDS):
    BOUNDS_NS[_index] = round(_bound * 1e9)


cdef class BalancerSeries(Series):
    def __init__(self, tuple labels):
        super().__init__(labels)
        self.balancers = []

    cdef void hold(self, object balancer, int64_t waiting, double timeout):
        """It counts here from now on, with as many requests as wait there. What it knows of endpoints is its first
        update; its gate is open."""
        self.balancers.append(balancer)
        self.is_pinned = True
        self.timeout = timeout
        self.requests += waiting
        self.waiting += waiting
        self.resets += 1
        self.gate_opened()

    cdef void let_go(self, object balancer, int64_t waiting, int64_t now_ns):
        """It is gone, or counts elsewhere, and takes along who waits."""
        self.waiting -= waiting
        self.left += waiting
        self.balancers.remove(balancer)
        self.is_pinned = bool(self.balancers)
        self.touched_ns = now_ns

    cdef void changed(self, int64_t added, int64_t removed):
        """So many endpoints are new or other than before, so many are gone."""
        self.additions += added
        self.removals += removed

    cdef void gate_opened(self):
        """An endpoint can be had (again)."""
        self.openings += 1
        self.opened_at = time.time()
        self.shut_at = 0

    cdef void gate_shut(self):
        """Failfast begins."""
        self.shuttings += 1
        self.shut_at = time.time()
        self.opened_at = 0

    cdef void queue_left(self, int64_t waited_ns):
        """A request waits no longer, however that ended."""
        cdef int index = 0
        while index < QUEUE_BUCKETS - 1 and waited_ns > BOUNDS_NS[index]:
            index += 1
        self.waited[index] += 1
        self.waited_ns += waited_ns
        self.waiting -= 1
        self.left += 1

    # As the exposition reads it.

    def queue_latency(self) -> tuple:
        """Counts per bucket, not cumulative, and the sum of seconds. Who did not wait is in the first bucket."""
        cdef int i
        cdef int64_t at_once = self.requests - self.waiting - self.left
        counts = [self.waited[i] for i in range(QUEUE_BUCKETS)]
        counts[0] += at_once
        return tuple(counts), self.waited_ns / 1e9

    def endpoints(self) -> int:
        return sum([len(balancer.endpoints) for balancer in self.balancers])

    def ready(self) -> int:
        return sum([balancer.ready_count() for balancer in self.balancers])
