# Counters as integer slots: what the hot path increments. Label sets and text are in registry.py and exposition.py.
from libc.stdint cimport int64_t

cdef enum:
    LATENCY_BUCKETS = 26  # Linkerd's `response_latency_ms` bounds and +Inf
    MAX_OUTCOMES = 64     # statuses, or (status, grpc-status, error), of one series: an application may invent them
    OTHER = -1            # the status under which a series counts what is beyond


cdef class Series:
    cdef readonly tuple labels       # ((name, value), ...) in the order they are exposed
    cdef public int64_t touched_ns   # last change; idle series are dropped
    cdef public bint is_pinned       # held by a live endpoint: not dropped however idle
    cdef public bint is_dropped      # no longer exposed: whoever holds it must ask its table again
    cdef readonly bint is_overflow   # stands for all label sets beyond the limit of its table
    cdef public str text             # the labels as they are exposed, once they were


cdef class TCPSeries(Series):
    cdef public int64_t opened, open_now, read_bytes, write_bytes
    cdef public dict closed          # errno name ("" for a clean close) -> count
    cdef void connection_opened(self, int64_t now_ns)
    cdef void connection_closed(self, str reason)


cdef class Latencies:
    """Times to the first byte of the body, for one HTTP status."""
    cdef readonly int status         # OTHER where a series has seen too many statuses to tell them apart
    cdef int64_t buckets[LATENCY_BUCKETS]
    cdef readonly int64_t sum_ms, count
    cdef void observe(self, int64_t elapsed_ns)


cdef class Outcomes:
    """Responses that ended alike."""
    cdef readonly int status         # 0 where there was no response head
    cdef readonly int grpc_status    # 0..16, NOT_GRPC or GRPC_UNSAID
    cdef readonly str error          # None for a response that came whole
    cdef readonly bint is_failure
    cdef readonly int64_t count


cdef class RequestSeries(Series):
    cdef readonly int64_t requests
    cdef readonly list latencies, outcomes
    cdef Latencies last_latencies
    cdef Outcomes last_outcomes
    cdef void sent(self, int64_t now_ns)                                   # a request left
    cdef void observe(self, int status, int64_t elapsed_ns)                # the first byte of its body came
    cdef void ended(self, int status, int grpc_status, str error, int64_t now_ns)
    cdef Latencies find_latencies(self, int status)
    cdef Outcomes find_outcomes(self, int status, int grpc_status, str error)


cdef class EventSeries(Series):
    """What happens rarely: errors, refusals."""
    cdef readonly int64_t count
    cpdef void add(self, int64_t now_ns, int64_t amount=*)


cdef class CounterTable:
    """Every series of one kind, by its labels, up to a limit."""
    cdef readonly dict series        # labels -> Series
    cdef readonly object kind
    cdef readonly int limit          # series of one direction
    cdef readonly dict limits        # direction -> its own limit, where it has one
    cdef dict counts                 # direction -> how many there are
    cdef int overflows               # series that stand for others
    cdef readonly int64_t overflowed  # times that one was given out in place of another
    cpdef Series get(self, tuple labels)
    cdef Series beyond(self, tuple labels)
