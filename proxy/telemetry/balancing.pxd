# What a balancer counts. How many endpoints it has, and how many requests wait, it is asked for at a scrape.
from libc.stdint cimport int64_t

from proxy.telemetry.counters cimport Series

cdef enum:
    QUEUE_BUCKETS = 7    # QUEUE_BOUNDS and +Inf


cdef class BalancerSeries(Series):
    cdef readonly list balancers     # those that count here now
    cdef readonly int64_t requests   # that entered, whether or not they had to wait
    cdef readonly int64_t waiting    # for an endpoint, now
    cdef int64_t waited[QUEUE_BUCKETS]
    cdef int64_t left, waited_ns     # those that waited, and are gone: to an endpoint, refused, or given up
    cdef readonly int64_t resets, additions, removals
    cdef readonly int64_t openings, shuttings
    cdef readonly double opened_at, shut_at  # Unix seconds; one of them is 0
    cdef readonly double timeout     # seconds after which the gate shuts
    cdef void hold(self, object balancer, int64_t waiting, double timeout)
    cdef void let_go(self, object balancer, int64_t waiting, int64_t now_ns)
    cdef void changed(self, int64_t added, int64_t removed)
    cdef void gate_opened(self)
    cdef void gate_shut(self)
    cdef void queue_left(self, int64_t waited_ns)
    cdef inline void passed(self):   # found an endpoint at once
        self.requests += 1
    cdef inline void queued(self):
        self.requests += 1
        self.waiting += 1
