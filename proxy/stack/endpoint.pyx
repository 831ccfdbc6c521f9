"""Endpoints and their peak EWMA. Pure: time is an argument.

The formula is Linkerd's (tower's `PeakEwma`): a slower answer than the average counts at once, a faster one only as
the average decays towards it, and an endpoint that is not used becomes cheap again.
"""
from libc.math cimport exp
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.telemetry.classify cimport is_failure
from proxy.telemetry.counters cimport RequestSeries, TCPSeries

import random

# What an endpoint is thought to take before it has answered once.
cdef double DEFAULT_RTT_NS = 30_000_000.0
# Time constant of the average.
cdef double DECAY_NS = 10_000_000_000.0
cdef int64_t BACKOFF_MIN_NS = 100_000_000
# Bounds of the pause after failed connects. Linkerd backs off for up to a minute; two seconds keep an endpoint that
# restarted from being avoided long after it is back.
cdef int64_t BACKOFF_MAX_NS = 2_000_000_000


cdef class Penalty:
    """Linkerd's: at least `least` seconds, more if Retry-After asks for it, up to `most`; with `takes_failures` also
    for answers that fail without asking for anything."""

    def __init__(self, double least, double most, bint takes_failures=False):
        if not 0.0 <= least <= 86_400.0 or not 0.0 <= most <= 86_400.0:
            raise ValueError(f"a penalty of {least:g} s to {most:g} s is not between 0 and a day")
        self.least_ns = <int64_t>(least * 1e9)
        self.most_ns = <int64_t>(most * 1e9)
        self.takes_failures = takes_failures

    cdef int64_t of(self, int status, int grpc_status, int64_t hint_ns):
        """What such an answer counts as at least; 0 for what it took. `hint_ns` is what it asked for."""
        if status == 429 or status == 503 or grpc_status == 8 or grpc_status == 14:
            return max(self.least_ns, min(hint_ns, self.most_ns))
        return self.least_ns if self.takes_failures and is_failure(status, grpc_status) else 0


cdef class Endpoint:
    """Where requests can be sent. `labels` are ((name, value), ...) as they appear in metrics."""

    def __init__(self, Address address not None, str identity, tuple labels, str no_tls_reason="",
                 bint is_opaque=False):
        self.address = address
        self.identity = identity or None
        self.no_tls_reason = no_tls_reason
        self.labels = labels
        self.is_opaque = is_opaque
        self.cost_ns = DEFAULT_RTT_NS
        self.idle = []
        self.waiters = []
        self.sessions = []
        self.stream_waiters = []

    cdef double load(self, int64_t now_ns):
        """Decayed latency times the requests that would be waiting: what P2C compares."""
        if self.stamp_ns and now_ns > self.stamp_ns:
            self.cost_ns *= exp((self.stamp_ns - now_ns) / DECAY_NS)
        self.stamp_ns = now_ns
        return self.cost_ns * (self.pending + 1)

    cdef void sample(self, int64_t now_ns, int64_t elapsed_ns):
        cdef double weight
        if elapsed_ns > self.cost_ns:
            self.cost_ns = <double>elapsed_ns
        else:
            weight = exp((self.stamp_ns - now_ns) / DECAY_NS) if self.stamp_ns else 0.0
            self.cost_ns = self.cost_ns * weight + elapsed_ns * (1.0 - weight)
        self.stamp_ns = now_ns

    cdef bint is_ready(self, int64_t now_ns):
        return not self.is_removed and now_ns >= self.blocked_until_ns and \
            (self.breaker is None or self.breaker.admits(now_ns))

    cdef void failed(self, int64_t now_ns):
        """A connect failed: keep away for a while, with jitter so that proxies do not return in step. Connects that
        were begun together fail together, and count once."""
        cdef int64_t base = BACKOFF_MIN_NS << min(self.failures, 6)
        if now_ns < self.blocked_until_ns:
            return
        self.failures += 1
        base = min(base, BACKOFF_MAX_NS)
        self.blocked_until_ns = now_ns + base // 2 + <int64_t>(random.random() * (base // 2))

    cdef void succeeded(self):
        self.failures = 0
        self.blocked_until_ns = 0

    cdef void count_under(self, RequestSeries requests, TCPSeries connections):
        """What its requests and connections are counted as, for as long as it is known. `requests` may be None."""
        self.requests = requests
        self.connections = connections
        connections.is_pinned = True
        if requests is not None:
            requests.is_pinned = True

    cdef void retire(self):
        """No longer known to discovery; what is in flight finishes."""
        self.is_removed = True
        if self.breaker is not None:
            self.breaker.leave()
        self.connections.is_pinned = False
        if self.requests is not None:
            self.requests.is_pinned = False

    def __repr__(self):
        return (
            f"<Endpoint {self.address.text} {self.identity or 'plaintext'} "
            f"cost={self.cost_ns / 1e6:.1f}ms pending={self.pending}>"
        )
