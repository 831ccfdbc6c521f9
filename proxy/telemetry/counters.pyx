"""Counters as integer slots. Pure: no clock of its own, no text.

A request touches a few of these objects, and only by incrementing C integers; a list or dictionary is looked into when
a connection, an endpoint or a status code is another than the last time.
"""
from libc.stdint cimport int64_t

from proxy.telemetry.classify cimport NOT_GRPC, is_failure

cdef enum:
    MAX_OVERFLOWS = 64  # series of one table that stand for those beyond its limit

# Labels whose values are few whatever a peer does: they stay when the rest is folded into `other`.
KEPT = frozenset({"direction", "peer", "tls", "error", "result", "protocol"})

LATENCY_BOUNDS_MS = (
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 5000,
    10000, 20000, 30000, 40000, 50000,
)
"""Upper bounds of `response_latency_ms`, in milliseconds (Linkerd's)."""

cdef int64_t[LATENCY_BUCKETS] BOUNDS_NS
for _index, _bound in enumerate(LATENCY_BOUNDS_MS):
    BOUNDS_NS[_index] = _bound * 1_000_000


cdef class Series:
    """Something counted under one set of labels."""

    def __init__(self, tuple labels):
        self.labels = labels


cdef class TCPSeries(Series):
    """tcp_open_total, tcp_open_connections, tcp_close_total and the byte counters of one peer relation."""

    def __init__(self, tuple labels):
        super().__init__(labels)
        self.closed = {}

    cdef void connection_opened(self, int64_t now_ns):
        self.opened += 1
        self.open_now += 1
        self.touched_ns = now_ns

    cdef void connection_closed(self, str reason):
        self.open_now -= 1
        self.closed[reason] = self.closed.get(reason, 0) + 1


cdef class Latencies:
    """The latency histogram of one status code (buckets are not cumulative here)."""

    cdef void observe(self, int64_t elapsed_ns):
        cdef int index = 0
        while index < LATENCY_BUCKETS - 1 and elapsed_ns > BOUNDS_NS[index]:
            index += 1
        self.buckets[index] += 1
        self.count += 1
        self.sum_ms += elapsed_ns // 1_000_000

    def counts(self) -> list:
        """Counts per bucket, not cumulative; the last is for +Inf."""
        cdef int index
        return [self.buckets[index] for index in range(LATENCY_BUCKETS)]


cdef class Outcomes:
    """How many responses ended with the same status, grpc-status and error."""


cdef class RequestSeries(Series):
    """request_total, response_total and response_latency_ms of one set of endpoint labels.

    A response is counted twice over: its latency when its body begins, its outcome when its stream ends, which for
    gRPC is when it is known at all.
    """

    def __init__(self, tuple labels):
        super().__init__(labels)
        self.latencies = []
        self.outcomes = []

    cdef void sent(self, int64_t now_ns):
        self.requests += 1
        self.touched_ns = now_ns

    cdef void observe(self, int status, int64_t elapsed_ns):
        if self.last_latencies is None or self.last_latencies.status != status:
            self.last_latencies = self.find_latencies(status)
        self.last_latencies.observe(elapsed_ns)

    cdef void ended(self, int status, int grpc_status, str error, int64_t now_ns):
        """`error` is None for a response that came whole; then `grpc_status` and `status` decide (see classify)."""
        cdef Outcomes last = self.last_outcomes
        self.touched_ns = now_ns
        if last is None or last.status != status or last.grpc_status != grpc_status or last.error is not error:
            last = self.last_outcomes = self.find_outcomes(status, grpc_status, error)
        last.count += 1

    cdef Latencies find_latencies(self, int status):
        cdef Latencies found
        for item in self.latencies:
            found = <Latencies>item
            if found.status == status:
                return found
        if len(self.latencies) >= MAX_OUTCOMES and status != OTHER:
            return self.find_latencies(OTHER)
        found = Latencies.__new__(Latencies)
        found.status = status
        self.latencies.append(found)
        return found

    cdef Outcomes find_outcomes(self, int status, int grpc_status, str error):
        cdef Outcomes found
        cdef bint failed = error is not None or is_failure(status, grpc_status)
        for item in self.outcomes:
            found = <Outcomes>item
            if found.status == status and found.grpc_status == grpc_status and found.error == error and \
                    found.is_failure == failed:
                return found
        if len(self.outcomes) >= MAX_OUTCOMES and status != OTHER:
            # Another status, so that what follows is not taken for one that was seen; the verdict stays.
            status, grpc_status = OTHER, NOT_GRPC
            error = "other" if failed else None
            for item in self.outcomes:
                found = <Outcomes>item
                if found.status == OTHER and found.is_failure == failed:
                    return found
        found = Outcomes.__new__(Outcomes)
        found.status = status
        found.grpc_status = grpc_status
        found.error = error
        found.is_failure = failed
        self.outcomes.append(found)
        return found

    # The compiled calls above as Python sees them: for calls of the control plane, tests and tools.

    def began(self, int64_t now_ns):
        self.sent(now_ns)

    def answered(self, int status, int64_t elapsed_ns):
        self.observe(status, elapsed_ns)

    def over(self, int status, int grpc_status, str error, int64_t now_ns):
        self.ended(status, grpc_status, error, now_ns)

    def count(self, int status, *, int grpc_status=NOT_GRPC, str error=None, int64_t elapsed_ns=0, int64_t now_ns=0):
        """One whole request: sent, first byte after `elapsed_ns`, ended."""
        self.sent(now_ns)
        self.observe(status, elapsed_ns)
        self.ended(status, grpc_status, error, now_ns)


cdef class EventSeries(Series):
    cpdef void add(self, int64_t now_ns, int64_t amount=1):
        self.count += amount
        self.touched_ns = now_ns


cdef class CounterTable:
    """The series of one kind. Labels may hold what a peer chose (ports it scanned, names it asked for), so each
    direction has a limit: beyond it a series is given out that stands for many, with `other` for what tells them
    apart."""

    def __init__(self, kind, int limit=10_000):
        self.kind = kind
        self.limit = limit
        self.limits = {}
        self.series = {}
        self.counts = {}

    cpdef Series get(self, tuple labels):
        found = self.series.get(labels)
        if found is None:
            side = direction(labels)
            if self.counts.get(side, 0) >= self.limits.get(side, self.limit):
                return self.beyond(labels)
            found = self.series[labels] = self.kind(labels)
            self.counts[side] = self.counts.get(side, 0) + 1
        return <Series>found

    cdef Series beyond(self, tuple labels):
        cdef Series made
        folded = tuple([(name, value if name in KEPT else "other") for name, value in labels])
        self.overflowed += 1
        found = self.series.get(folded)
        if found is None and self.overflows >= MAX_OVERFLOWS:
            folded = (("direction", "other"),)
            found = self.series.get(folded)
        if found is None:
            made = found = self.series[folded] = self.kind(folded)
            made.is_overflow = True
            self.overflows += 1
        return <Series>found

    def drop_idle(self, int64_t now_ns, int64_t retain_ns) -> int:
        """Forget series that nothing touched for `retain_ns` and nobody holds; returns how many."""
        cdef Series series
        cdef int dropped = 0
        for labels, item in list(self.series.items()):
            series = <Series>item
            if series.is_pinned or series.is_overflow or now_ns - series.touched_ns <= retain_ns:
                continue
            if isinstance(series, TCPSeries) and (<TCPSeries>series).open_now != 0:
                continue
            series.is_dropped = True
            del self.series[labels]
            self.counts[direction(labels)] -= 1
            dropped += 1
        return dropped


cdef object direction(tuple labels):
    """What a series is counted against: scanned ports must not take the room of the endpoints that we call."""
    return labels[0][1] if labels and labels[0][0] == "direction" else ""
