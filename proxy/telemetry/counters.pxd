# Counters as integer slots: what the hot path increments. Label sets and text are in registry.py and exposition.py.
from libc.stdint cimport int64_t

cdef enum:
    LATENCY_BUCKETS = 26  # Linkerd's `response_latency_ms` bounds and +Inf


cdef class Series:
    cdef readonly tuple labels       # ((name, value), ...) in the order they are exposed
    cdef public int64_t touched_ns   # last change; idle series are dropped
    cdef public bint is_pinned       # held by a live endpoint: not dropped however idle
    cdef public bint is_dropped      # no longer exposed: whoever holds it must ask its table again


cdef class TCPSeries(Series):
    cdef public int64_t opened, open_now, read_bytes, write_bytes
    cdef public dict closed          # errno name ("" for a clean close) -> count
    cdef void connection_opened(self, int64_t now_ns)
    cdef void connection_closed(self, str reason)


cdef class ResponseSeries:
    cdef readonly int status
    cdef int64_t buckets[LATENCY_BUCKETS]
    cdef public int64_t success, failure, latency_sum_ms, latency_count
    cdef void observe_latency(self, int64_t elapsed_ns)


cdef class RequestSeries(Series):
    cdef public int64_t requests
    cdef readonly dict by_status     # HTTP status -> ResponseSeries
    cdef readonly dict failures      # (status, error) -> count of responses that ended in a named error
    cdef ResponseSeries last
    cdef ResponseSeries response(self, int status)
    cdef void failed(self, int status, str error)


cdef class CounterTable:
    cdef readonly dict series        # labels -> Series
    cdef readonly object kind
    cpdef Series get(self, tuple labels)


cdef class EventCounters:
    cdef readonly dict counts        # (family, labels) -> count; for what happens rarely (errors, refusals)
    cpdef void add(self, str family, tuple labels, int64_t amount=*)
