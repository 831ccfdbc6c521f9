# Which endpoint a request goes to, and what it waits for when there is none.
from libc.stdint cimport int64_t, uint64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.stack.http1_client cimport ConnectionObserver, HTTP1Client
from proxy.tls.contexts cimport TLSContexts


cdef class Limits:
    cdef int64_t connect_timeout_ns, failfast_ns, pool_idle_ns
    cdef int queue_capacity
    cdef bint backs_off


cdef class PoolObserver(ConnectionObserver):
    cdef Balancer balancer


cdef class QueueTimer(Timer):
    cdef Balancer balancer


cdef class IdleTimer(Timer):
    cdef Balancer balancer


cdef class Balancer(Dispatcher):
    cdef Reactor reactor
    cdef TLSContexts tls
    cdef Limits limits
    cdef readonly list endpoints
    cdef list queue
    cdef dict by_address
    cdef PoolObserver observer
    cdef QueueTimer queue_timer
    cdef IdleTimer idle_timer
    cdef int idle_count
    cdef uint64_t random_state
    cdef bint is_failing             # failfast: the queue gave up, and nothing has become ready since
    cdef readonly object log
    cdef Endpoint pick(self, Endpoint avoid)
    cdef void send(self, Exchange exchange, Endpoint endpoint)
    cdef void start_dials(self, Endpoint endpoint)
    cdef void dial_failed(self, Endpoint endpoint, bint timed_out)
    cdef void enqueue(self, Exchange exchange)
    cdef void drain_queue(self)
    cdef void expire_queue(self)
    cdef void reap_idle(self)
    cdef void retire(self, Endpoint endpoint)
    cdef void pool(self, HTTP1Client client)
    cdef void unpool(self, HTTP1Client client)
    cdef uint64_t next_random(self)
