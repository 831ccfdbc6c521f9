"""Counters as integer slots. Pure: no clock of its own, no text.

A request touches at most two of these objects, and only by incrementing C integers; the dictionaries are looked into
when a connection, an endpoint or a status code is seen for the first time.
"""
from libc.stdint cimport int64_t

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


cdef class ResponseSeries:
    """Responses of one status code: outcome counts and the latency histogram (buckets are not cumulative here)."""

    def __init__(self, int status):
        self.status = status

    cdef void observe_latency(self, int64_t elapsed_ns):
        cdef int index = 0
        while index < LATENCY_BUCKETS - 1 and elapsed_ns > BOUNDS_NS[index]:
            index += 1
        self.buckets[index] += 1
        self.latency_count += 1
        self.latency_sum_ms += elapsed_ns // 1_000_000

    def counts(self) -> list:
        """Counts per bucket, not cumulative; the last is for +Inf."""
        cdef int index
        return [self.buckets[index] for index in range(LATENCY_BUCKETS)]


cdef class RequestSeries(Series):
    """request_total, response_total and response_latency_ms of one set of endpoint labels."""

    def __init__(self, tuple labels):
        super().__init__(labels)
        self.by_status = {}
        self.failures = {}

    cdef ResponseSeries response(self, int status):
        if self.last is not None and self.last.status == status:
            return self.last
        found = self.by_status.get(status)
        if found is None:
            found = self.by_status[status] = ResponseSeries(status)
        self.last = <ResponseSeries>found
        return self.last

    cdef void failed(self, int status, str error):
        key = (status, error)
        self.failures[key] = self.failures.get(key, 0) + 1


cdef class CounterTable:
    """Every series of one kind, by its labels."""

    def __init__(self, kind):
        self.kind = kind
        self.series = {}

    cpdef Series get(self, tuple labels):
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = self.kind(labels)
        return <Series>found


cdef class EventCounters:
    """Plain counters for rare events: errors, refusals, retries."""

    def __init__(self):
        self.counts = {}

    cpdef void add(self, str family, tuple labels, int64_t amount=1):
        key = (family, labels)
        self.counts[key] = self.counts.get(key, 0) + amount
