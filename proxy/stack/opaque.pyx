"""Connecting an opaque connection to an endpoint: P2C on the time to connect, one retry elsewhere, then bytes both
ways."""
from libc.stdint cimport int64_t

from proxy.io.dial cimport dial
from proxy.io.reactor cimport Timer
from proxy.io.relay cimport join
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.balance cimport Balancer
from proxy.stack.buffer cimport Buffer
from proxy.stack.routing cimport ConnectionSet
from proxy.io.address cimport Address
from proxy.tls.contexts cimport TLSContext

from proxy.io.dial import DescriptorsExhausted
from proxy.tls.contexts import opaque_alpn

cdef enum:
    MAX_ATTEMPTS = 2
    MAX_EARLY = 65536      # bytes a client may send before its upstream stands

cdef int64_t RETRY_NS = 50_000_000

INBOUND_PORT = 4143
"""Opaque connections between proxies go to the peer's inbound port and name the application's port in ALPN: a server
that speaks first could not be told from a plaintext client otherwise, since neither sends the first byte."""


cdef class OpaqueWaiting(Protocol):
    """The downstream while its upstream is being connected: what it sends early is kept."""

    cdef void data_received(self, const char* data, Py_ssize_t size):
        self.connect.early.put(data, size)
        if self.connect.early.size > MAX_EARLY:
            self.connect.downstream.pause_reading()

    cdef void closed(self, object reason):
        self.connect.downstream_gone = True

    cdef void crashed(self):
        self.closed(None)


cdef class RetryTimer(Timer):
    cdef OpaqueConnect connect

    cdef void expired(self):
        self.connect.attempt()


cdef class OpaqueConnect(Protocol):
    """One downstream connection on its way. `refused(error)` is told when none of its attempts stood, `on_end()` when
    it is over."""

    def __init__(self, Balancer balancer not None, ConnectionSet connections not None, refused, on_end=None):
        self.on_end = on_end
        self.balancer = balancer
        self.connections = connections
        self.refused = refused
        self.early = Buffer()

    cdef void start(self, Transport downstream, const char* data, Py_ssize_t size):
        cdef OpaqueWaiting waiting = OpaqueWaiting()
        waiting.connect = self
        self.downstream = downstream
        downstream.protocol = waiting
        self.connections.add(self)
        self.early.put(data, size)
        self.started_ns = self.balancer.reactor.time_ns()
        self.counted = self.balancer.opaque_counted
        self.attempt()

    cdef void attempt(self):
        cdef TLSContext context = None
        cdef Address address
        cdef RetryTimer retry
        cdef str alpn = None
        if self.downstream_gone:
            self.settle()
            return
        self.endpoint = self.balancer.pick(self.avoid)
        if self.endpoint is None:
            if self.queued_ns == 0 and self.counted is not None:
                self.queued_ns = self.balancer.reactor.time_ns()
                self.counted.queued()
            if self.balancer.reactor.time_ns() - self.started_ns > self.balancer.limits.failfast_ns:
                self.give_up("failfast")
                return
            retry = RetryTimer()
            retry.connect = self
            self.balancer.reactor.arm(retry, RETRY_NS)
            return
        if self.queued_ns != 0:
            self.leave_queue()
        elif self.counted is not None:
            self.counted.passed()
        self.attempts += 1
        address = self.endpoint.address
        if self.endpoint.identity is not None:
            context = self.balancer.tls.client
            alpn = opaque_alpn(address.port)
            address = Address(address.ip, INBOUND_PORT)
        self.endpoint.pending += 1
        self.started_ns = self.balancer.reactor.time_ns()
        dial(
            self.balancer.reactor, address, self, context, self.endpoint.identity, alpn,
            self.balancer.limits.connect_timeout_ns, self.balancer.limits.peer_timeout_ms, self.endpoint.connections,
        )

    cdef void connected(self, Transport upstream):
        cdef int64_t now_ns = self.balancer.reactor.time_ns()
        self.endpoint.pending -= 1
        self.endpoint.sample(now_ns, now_ns - self.started_ns)
        self.endpoint.succeeded()
        if self.downstream_gone:
            upstream.abort()
            self.settle()
            return
        if self.early.size > 0:
            upstream.write(self.early.data, self.early.size)
            self.early.clear()
        join(self.downstream, upstream, self.joined_ended)

    def joined_ended(self):
        self.settle()

    cdef void closed(self, object reason):
        self.endpoint.pending -= 1
        if not isinstance(reason, DescriptorsExhausted):
            self.endpoint.failed(self.balancer.reactor.time_ns())
        if self.balancer.log is not None:
            self.balancer.log(self.endpoint, reason)
        if self.attempts < MAX_ATTEMPTS and not self.downstream_gone:
            self.avoid = self.endpoint
            self.attempt()
            return
        self.give_up("connect timeout" if isinstance(reason, TimeoutError) else "connect error")

    cdef void leave_queue(self):
        self.counted.queue_left(self.balancer.reactor.time_ns() - self.queued_ns)
        self.queued_ns = 0

    cdef void give_up(self, str error):
        if not self.downstream_gone:
            self.downstream.abort()
        self.refused(error)
        self.settle()

    def drain(self):
        """Opaque connections end when their ends do: there is no telling where one message stops."""

    cdef void settle(self):
        if self.queued_ns != 0:
            self.leave_queue()
        self.connections.discard(self)
        on_end = self.on_end
        self.on_end = None
        if on_end is not None:
            on_end()
