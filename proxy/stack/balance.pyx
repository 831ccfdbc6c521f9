"""Which endpoint a request goes to: power of two choices over peak EWMA, pooled connections, a queue with failfast.

P2C runs over endpoints that are ready: known to discovery, not backing off after a failed connect, and admitted by
their breaker. When none is, requests wait; after the failfast time they are answered 504, and until something is ready
again new ones wait no longer (Linkerd's failfast).
"""
from libc.stdint cimport int64_t, uint64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.breaker cimport Breaker, BreakerPolicy, Ejections
from proxy.stack.endpoint cimport Endpoint, Penalty
from proxy.stack.exchange cimport Exchange
from proxy.stack.http1_pool cimport HTTP1Pool
from proxy.stack.http2_pool cimport HTTP2Pool
from proxy.stack.pool cimport Limits, PoolOwner
from proxy.telemetry.balancing cimport BalancerSeries
from proxy.tls.contexts cimport TLSContexts

import random

from proxy.io.dial import DescriptorsExhausted

# How often waiting requests look for an endpoint whose backoff has ended.
cdef int64_t QUEUE_TICK_NS = 50_000_000
# In failfast a request still waits this long at most, so that a service that came back is noticed by its callers.
cdef int64_t FAILFAST_RETRY_NS = 500_000_000


cdef class QueueTimer(Timer):
    cdef void expired(self):
        self.balancer.expire_queue()


cdef class Balancer(PoolOwner):
    """The endpoints of one destination. `log(endpoint, reason)` is told of connects that failed."""

    def __init__(self, Reactor reactor not None, TLSContexts tls, Limits limits not None, log=None):
        self.reactor = reactor
        self.tls = tls
        self.limits = limits
        self.log = log
        self.endpoints = []
        self.by_address = {}
        self.queue = []
        self.http1 = HTTP1Pool(self)
        self.http2 = HTTP2Pool(self)
        self.queue_timer = QueueTimer()
        self.queue_timer.balancer = self
        self.random_state = random.getrandbits(63) | 1

    def update(self, upserts, removals=(), bint replace=False):
        """Apply endpoints from discovery: `upserts` are Endpoint objects, `removals` addresses as text.

        An endpoint that did not change keeps its latency history and its connections; one that went finishes what is
        in flight.
        """
        cdef Endpoint new, old
        fresh = {}
        for item in upserts:
            new = <Endpoint>item
            old = self.by_address.get(new.address.text)
            if old is not None and old.identity == new.identity and old.labels == new.labels and \
                    old.is_opaque == new.is_opaque:
                fresh[new.address.text] = old
            else:
                fresh[new.address.text] = new
                self.fit(new)
        if replace:
            kept = fresh
        else:
            kept = dict(self.by_address)
            kept.update(fresh)
            for address in removals:
                kept.pop(address, None)
        self.count_update(kept)
        for address, item in self.by_address.items():
            if kept.get(address) is not item:
                self.retire(<Endpoint>item)
        self.by_address = kept
        self.endpoints = list(kept.values())
        if self.ejections is not None:
            self.ejections.resize(len(self.endpoints))
        self.drain_queue()

    cdef void retire(self, Endpoint endpoint):
        cdef Exchange exchange
        endpoint.retire()
        for item in self.http1.retire(endpoint) + self.http2.retire(endpoint):
            exchange = <Exchange>item
            endpoint.pending -= 1
            exchange.endpoint = None
            exchange.breaker = None
            self.enqueue(exchange)

    cdef void treat(self, BreakerPolicy breaking, Penalty penalty):
        """How discovery wants endpoints treated from now on. Other rules for breakers begin with a clean slate."""
        self.penalty = penalty
        if self.breaking != breaking:
            self.breaking = breaking
            self.ejections = Ejections(len(self.endpoints)) if breaking is not None else None
        for endpoint in self.endpoints:
            self.fit(<Endpoint>endpoint)

    cdef void fit(self, Endpoint endpoint):
        endpoint.penalty = self.penalty
        if self.breaking is None:
            endpoint.breaker = None
        elif endpoint.breaker is None or endpoint.breaker.ejections is not self.ejections:
            endpoint.breaker = Breaker(self.breaking, self.ejections)

    def close(self):
        """Forget every endpoint; connections in use end with their exchange."""
        self.count_requests(None)
        self.count_connections(None)
        self.update((), (), True)

    # Counting

    cdef void count_requests(self, BalancerSeries series):
        """Requests count here from now on, and those that wait with them."""
        if self.counted is not None:
            self.counted.let_go(self, len(self.queue), self.reactor.now_ns)
        self.counted = series
        if series is not None:
            series.hold(self, len(self.queue), self.limits.failfast_ns / 1e9)
            if self.is_failing:
                series.gate_shut()

    cdef void count_connections(self, BalancerSeries series):
        """Opaque connections count here from now on; those that wait stay where they began."""
        if self.opaque_counted is not None:
            self.opaque_counted.let_go(self, 0, self.reactor.now_ns)
        self.opaque_counted = series
        if series is not None:
            series.hold(self, 0, self.limits.failfast_ns / 1e9)

    cdef void count_update(self, dict kept):
        cdef int64_t added = 0, removed = 0
        if self.counted is None and self.opaque_counted is None:
            return
        for address, item in kept.items():
            added += self.by_address.get(address) is not item
        for address in self.by_address:
            removed += address not in kept
        if self.counted is not None:
            self.counted.changed(added, removed)
        if self.opaque_counted is not None:
            self.opaque_counted.changed(added, removed)

    def ready_count(self):
        """How many endpoints can be had now."""
        cdef int64_t now_ns = self.reactor.time_ns()
        cdef int count = 0
        for item in self.endpoints:
            count += (<Endpoint>item).is_ready(now_ns)
        return count

    cdef uint64_t next_random(self):
        """xorshift64: P2C needs speed and spread, not secrecy."""
        cdef uint64_t x = self.random_state
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
        self.random_state = x
        return x

    cdef Endpoint pick(self, Endpoint avoid):
        """A ready endpoint, the cheaper of two chosen at random; `avoid` only if there is no other. None when none is
        ready."""
        cdef Py_ssize_t count = len(self.endpoints)
        cdef Py_ssize_t i, ready = 0, first, second
        cdef int64_t now_ns = self.reactor.now_ns
        cdef Endpoint one, two
        cdef list candidates
        if count == 0:
            return None
        if count > 2:
            # Nearly always both picks are ready, so the list of ready ones is built only when they are not.
            first = <Py_ssize_t>(self.next_random() % <uint64_t>count)
            second = <Py_ssize_t>(self.next_random() % <uint64_t>(count - 1))
            if second >= first:
                second += 1
            one = <Endpoint>self.endpoints[first]
            two = <Endpoint>self.endpoints[second]
            if one is not avoid and two is not avoid and one.is_ready(now_ns) and two.is_ready(now_ns):
                return one if one.load(now_ns) <= two.load(now_ns) else two
        candidates = []
        for i in range(count):
            one = <Endpoint>self.endpoints[i]
            if one is not avoid and one.is_ready(now_ns):
                candidates.append(one)
        ready = len(candidates)
        if ready == 0:
            return avoid if avoid is not None and avoid.is_ready(now_ns) else None
        if ready == 1:
            return <Endpoint>candidates[0]
        first = <Py_ssize_t>(self.next_random() % <uint64_t>ready)
        second = <Py_ssize_t>(self.next_random() % <uint64_t>(ready - 1))
        if second >= first:
            second += 1
        one = <Endpoint>candidates[first]
        two = <Endpoint>candidates[second]
        return one if one.load(now_ns) <= two.load(now_ns) else two

    cdef void dispatch(self, Exchange exchange):
        cdef Endpoint endpoint
        exchange.attempts += 1
        endpoint = self.pick(exchange.avoid)
        if endpoint is None:
            self.enqueue(exchange)
        else:
            if self.counted is not None:
                self.counted.passed()
            self.send(exchange, endpoint)

    cdef bint is_ready(self):
        return self.pick(None) is not None

    cdef void send(self, Exchange exchange, Endpoint endpoint):
        endpoint.pending += 1
        exchange.endpoint = endpoint
        if endpoint.breaker is not None:
            exchange.breaker = endpoint.breaker
            exchange.ticket = endpoint.breaker.enter(self.reactor.now_ns)
        exchange.started_ns = self.reactor.now_ns
        if exchange.is_http2:
            self.http2.send(exchange, endpoint)
        else:
            self.http1.send(exchange, endpoint)

    cdef void connection_stands(self, Endpoint endpoint):
        endpoint.succeeded()
        if self.is_failing:
            self.is_failing = False
            if self.counted is not None:
                self.counted.gate_opened()

    cdef void connection_failed(self, Endpoint endpoint, object reason):
        if self.limits.backs_off and not isinstance(reason, DescriptorsExhausted):
            endpoint.failed(self.reactor.time_ns())
        if self.log is not None:
            self.log(endpoint, reason)

    # Waiting

    cdef void enqueue(self, Exchange exchange):
        if len(self.queue) >= self.limits.queue_capacity:
            exchange.is_unreached = True
            exchange.refuse(503, "loadshed")
            return
        exchange.waiting = True
        exchange.waiting_since_ns = self.reactor.now_ns
        self.queue.append(exchange)
        if self.counted is not None:
            self.counted.queued()
        if self.queue_timer.slot < 0:
            self.reactor.arm(self.queue_timer, QUEUE_TICK_NS)

    cdef void forget(self, Exchange exchange):
        exchange.waiting = False
        if exchange.endpoint is None:
            self.queue.remove(exchange)
            self.count_left(exchange)
        elif exchange.is_http2:
            self.http2.forget(exchange)
        else:
            self.http1.forget(exchange)

    cdef void count_left(self, Exchange exchange):
        """It does not wait in the queue any more."""
        if self.counted is not None:
            self.counted.queue_left(self.reactor.now_ns - exchange.waiting_since_ns)

    cdef void drain_queue(self):
        cdef Exchange exchange
        cdef Endpoint endpoint
        while self.queue:
            exchange = <Exchange>self.queue[0]
            endpoint = self.pick(exchange.avoid)
            if endpoint is None:
                return
            self.queue.pop(0)
            exchange.waiting = False
            self.count_left(exchange)
            self.send(exchange, endpoint)

    cdef void expire_queue(self):
        cdef Exchange exchange
        cdef int64_t limit = FAILFAST_RETRY_NS if self.is_failing else self.limits.failfast_ns
        self.drain_queue()
        while self.queue:
            exchange = <Exchange>self.queue[0]
            if self.reactor.now_ns - exchange.waiting_since_ns < limit:
                break
            self.queue.pop(0)
            exchange.waiting = False
            self.count_left(exchange)
            if not self.is_failing:
                self.is_failing = True
                if self.counted is not None:
                    self.counted.gate_shut()
            exchange.is_unreached = True
            exchange.refuse(504, "failfast")
        if self.queue:
            self.reactor.arm(self.queue_timer, QUEUE_TICK_NS)

    def __repr__(self):
        return (
            f"<Balancer {len(self.endpoints)} endpoints, {self.http1.idle_count()} idle connections, "
            f"{len(self.queue)} waiting>"
        )
