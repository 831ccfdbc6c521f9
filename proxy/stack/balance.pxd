# Which endpoint a request goes to, and what it waits for when there is none.
from libc.stdint cimport int64_t, uint64_t

from proxy.io.reactor cimport Timer
from proxy.stack.breaker cimport BreakerPolicy, Ejections
from proxy.stack.endpoint cimport Endpoint, Penalty
from proxy.stack.exchange cimport Exchange
from proxy.stack.http1_pool cimport HTTP1Pool
from proxy.stack.http2_pool cimport HTTP2Pool
from proxy.stack.pool cimport PoolOwner
from proxy.telemetry.balancing cimport BalancerSeries


cdef class QueueTimer(Timer):
    cdef Balancer balancer


cdef class Balancer(PoolOwner):
    cdef HTTP1Pool http1
    cdef HTTP2Pool http2
    cdef list queue
    cdef dict by_address
    cdef QueueTimer queue_timer
    cdef uint64_t random_state
    cdef bint is_failing             # failfast: the queue gave up, and nothing has become ready since
    cdef BreakerPolicy breaking      # None: no endpoint is ever left alone
    cdef Ejections ejections
    cdef Penalty penalty             # None: answers that ask for less count as any
    cdef readonly object log
    cdef BalancerSeries counted      # what its requests count as; None: not counted (inbound)
    cdef BalancerSeries opaque_counted  # the same of opaque connections
    cdef Endpoint pick(self, Endpoint avoid)
    cdef void send(self, Exchange exchange, Endpoint endpoint)
    cdef void enqueue(self, Exchange exchange)
    cdef void drain_queue(self)
    cdef void expire_queue(self)
    cdef void retire(self, Endpoint endpoint)
    cdef void count_requests(self, BalancerSeries series)
    cdef void count_connections(self, BalancerSeries series)
    cdef void count_update(self, dict kept)
    cdef void count_left(self, Exchange exchange)
    cdef void treat(self, BreakerPolicy breaking, Penalty penalty)
    cdef void fit(self, Endpoint endpoint)
    cdef uint64_t next_random(self)
