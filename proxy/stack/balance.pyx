"""Which endpoint a request goes to: power of two choices over peak EWMA, pooled connections, a queue with failfast.

P2C runs over endpoints that are ready: known to discovery and not backing off after a failed connect. When none is,
requests wait; after the failfast time they are answered 504, and until something is ready again new ones wait no
longer (Linkerd's failfast).
"""
from libc.stdint cimport int64_t, uint64_t

from proxy.io.dial cimport dial
from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Dispatcher, Exchange
from proxy.stack.http1_client cimport ConnectionObserver, HTTP1Client
from proxy.tls.contexts cimport TLSContexts

from proxy.tls.contexts import ALPN_HTTP1

import random

cdef str TULLE_HTTP1 = ALPN_HTTP1

cdef enum:
    MAX_DIALS = 8  # connections being made to one endpoint at a time

# How often waiting requests look for an endpoint whose backoff has ended.
cdef int64_t QUEUE_TICK_NS = 50_000_000
cdef int64_t IDLE_TICK_NS = 1_000_000_000
# In failfast a request still waits this long at most, so that a service that came back is noticed by its callers.
cdef int64_t FAILFAST_RETRY_NS = 500_000_000


cdef class Limits:
    """Times in seconds; `queue_capacity` in requests. Without `backs_off` an endpoint is ready again at once: the
    local application."""

    def __init__(self, double connect_timeout, double failfast_timeout, double pool_idle, int queue_capacity=10_000,
                 bint backs_off=True):
        self.backs_off = backs_off
        self.connect_timeout_ns = <int64_t>(connect_timeout * 1e9)
        self.failfast_ns = <int64_t>(failfast_timeout * 1e9)
        self.pool_idle_ns = <int64_t>(pool_idle * 1e9)
        self.queue_capacity = queue_capacity


cdef class PoolObserver(ConnectionObserver):
    cdef void connection_opened(self, HTTP1Client client):
        client.endpoint.dialing -= 1
        client.endpoint.succeeded()
        self.balancer.is_failing = False

    cdef void connection_failed(self, HTTP1Client client, object reason):
        client.endpoint.dialing -= 1
        if self.balancer.limits.backs_off:
            client.endpoint.failed(self.balancer.reactor.time_ns())
        if self.balancer.log is not None:
            self.balancer.log(client.endpoint, reason)
        self.balancer.dial_failed(client.endpoint, isinstance(reason, TimeoutError))

    cdef void connection_idle(self, HTTP1Client client):
        self.balancer.pool(client)

    cdef void connection_gone(self, HTTP1Client client):
        self.balancer.unpool(client)


cdef class QueueTimer(Timer):
    cdef void expired(self):
        self.balancer.expire_queue()


cdef class IdleTimer(Timer):
    cdef void expired(self):
        self.balancer.reap_idle()


cdef class Balancer(Dispatcher):
    """The endpoints of one destination. `log(endpoint, reason)` is told of connects that failed."""

    def __init__(self, Reactor reactor not None, TLSContexts tls, Limits limits not None, log=None):
        self.reactor = reactor
        self.tls = tls
        self.limits = limits
        self.log = log
        self.endpoints = []
        self.by_address = {}
        self.queue = []
        self.observer = PoolObserver()
        self.observer.balancer = self
        self.queue_timer = QueueTimer()
        self.queue_timer.balancer = self
        self.idle_timer = IdleTimer()
        self.idle_timer.balancer = self
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
        if replace:
            kept = fresh
        else:
            kept = dict(self.by_address)
            kept.update(fresh)
            for address in removals:
                kept.pop(address, None)
        for address, item in self.by_address.items():
            if kept.get(address) is not item:
                self.retire(<Endpoint>item)
        self.by_address = kept
        self.endpoints = list(kept.values())
        self.drain_queue()

    cdef void retire(self, Endpoint endpoint):
        cdef Exchange exchange
        cdef list waiters = endpoint.waiters
        endpoint.retire()
        endpoint.waiters = []
        for client in list(endpoint.idle):
            (<HTTP1Client>client).detach()
        for item in waiters:
            exchange = <Exchange>item
            endpoint.pending -= 1
            exchange.endpoint = None
            self.enqueue(exchange)

    def close(self):
        """Forget every endpoint; connections in use end with their exchange."""
        self.update((), (), True)
        self.reactor.disarm(self.idle_timer)

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
            self.send(exchange, endpoint)

    cdef void send(self, Exchange exchange, Endpoint endpoint):
        """Over a pooled connection if there is one; else the exchange takes whichever connection is free first, one
        that is being made or one that becomes idle."""
        cdef HTTP1Client client
        endpoint.pending += 1
        exchange.endpoint = endpoint
        exchange.started_ns = self.reactor.now_ns
        while endpoint.idle:
            client = <HTTP1Client>endpoint.idle.pop()
            self.idle_count -= 1
            client.is_idle = False
            if client.is_open and not client.transport.eof:
                client.begin(exchange)
                return
        exchange.waiting = True
        endpoint.waiters.append(exchange)
        self.start_dials(endpoint)

    cdef void start_dials(self, Endpoint endpoint):
        """As many connections in the making as there are waiters, within the limit that keeps a burst from becoming
        a storm of handshakes, each too slow for its time limit."""
        cdef HTTP1Client client
        while endpoint.dialing < MAX_DIALS and endpoint.dialing < len(endpoint.waiters):
            client = HTTP1Client()
            client.endpoint = endpoint
            client.observer = self.observer
            endpoint.dialing += 1
            dial(
                self.reactor, endpoint.address, client, self.tls.client if endpoint.identity is not None else None,
                endpoint.identity, TULLE_HTTP1, self.limits.connect_timeout_ns, endpoint.connections,
            )

    cdef void dial_failed(self, Endpoint endpoint, bint timed_out):
        """A connection did not stand, so nothing of a request has left: one waiter goes elsewhere, and all of them
        when no other connection is being made."""
        cdef Exchange exchange
        cdef list lost = endpoint.waiters[:1] if endpoint.dialing > 0 else endpoint.waiters
        endpoint.waiters = endpoint.waiters[len(lost):]
        for item in lost:
            exchange = <Exchange>item
            exchange.waiting = False
            if timed_out:
                exchange.lost("connect timeout", 504, True)
            else:
                exchange.lost("connect error", 502, True)

    # Waiting

    cdef void enqueue(self, Exchange exchange):
        if len(self.queue) >= self.limits.queue_capacity:
            exchange.is_unreached = True
            exchange.downstream.refuse(503, "loadshed", True)
            return
        exchange.waiting = True
        exchange.waiting_since_ns = self.reactor.now_ns
        self.queue.append(exchange)
        if self.queue_timer.slot < 0:
            self.reactor.arm(self.queue_timer, QUEUE_TICK_NS)

    cdef void forget(self, Exchange exchange):
        exchange.waiting = False
        if exchange.endpoint is not None:
            exchange.endpoint.waiters.remove(exchange)
        else:
            self.queue.remove(exchange)

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
            self.is_failing = True
            exchange.is_unreached = True
            exchange.downstream.refuse(504, "failfast", True)
        if self.queue:
            self.reactor.arm(self.queue_timer, QUEUE_TICK_NS)

    # Pooled connections

    cdef void pool(self, HTTP1Client client):
        cdef Endpoint endpoint = client.endpoint
        cdef Exchange exchange
        if endpoint.waiters:
            exchange = <Exchange>endpoint.waiters.pop(0)
            exchange.waiting = False
            client.begin(exchange)
            self.start_dials(endpoint)
            return
        if endpoint.is_removed:
            client.detach()
            return
        client.is_idle = True
        client.idle_since_ns = self.reactor.now_ns
        client.endpoint.idle.append(client)
        self.idle_count += 1
        if self.idle_timer.slot < 0:
            self.reactor.arm(self.idle_timer, IDLE_TICK_NS)

    cdef void unpool(self, HTTP1Client client):
        if client.is_idle:
            client.is_idle = False
            client.endpoint.idle.remove(client)
            self.idle_count -= 1

    cdef void reap_idle(self):
        cdef HTTP1Client client
        cdef list oldest = []
        cdef int64_t limit = self.reactor.now_ns - self.limits.pool_idle_ns
        for endpoint in self.endpoints:
            for item in (<Endpoint>endpoint).idle:
                client = <HTTP1Client>item
                if client.idle_since_ns > limit:
                    break
                oldest.append(client)
        for item in oldest:
            (<HTTP1Client>item).detach()
        if self.idle_count > 0:
            self.reactor.arm(self.idle_timer, IDLE_TICK_NS)

    def __repr__(self):
        return (
            f"<Balancer {len(self.endpoints)} endpoints, {self.idle_count} idle connections, "
            f"{len(self.queue)} waiting>"
        )
