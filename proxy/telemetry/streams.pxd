# The second generation of HTTP metrics, per route and per backend, and protocol detection; what one stream touches.
from libc.stdint cimport int64_t, uint32_t

from proxy.telemetry.counters cimport Series

cdef enum:
    DURATION_BUCKETS = 8   # the finest bounds any family shows, and +Inf
    FRAME_BUCKETS = 4
    DETECT_BUCKETS = 3

cdef enum DetectResult:
    DETECTED_HTTP1
    DETECTED_HTTP2
    DETECTED_NOT_HTTP
    DETECT_TIMED_OUT
    DETECT_FAILED
    DETECT_RESULTS


cdef class StatusCount:
    cdef readonly int status       # HTTP; 0 where there was none, OTHER beyond the limit
    cdef readonly str error        # Linkerd's word for it; "" for a stream that came whole
    cdef readonly int64_t count


cdef class StreamSeries(Series):
    """Everything that is counted of the streams of one route, or of one backend of it; a family shows a part."""
    cdef readonly int64_t requests
    cdef int64_t request_lasted[DURATION_BUCKETS]
    cdef int64_t response_lasted[DURATION_BUCKETS]
    cdef int64_t request_ns, response_ns
    cdef int64_t request_frames[FRAME_BUCKETS]
    cdef int64_t response_frames[FRAME_BUCKETS]
    cdef readonly int64_t request_bytes, response_bytes
    cdef readonly list statuses
    cdef StatusCount last
    # Tries after the first: made, made with success, and not made because there were, or are, too many.
    cdef public int64_t retries, retry_successes, retry_limits, retry_overflows
    cdef void began(self, int64_t now_ns)
    cdef void request_frame(self, Py_ssize_t size)
    cdef void response_frame(self, Py_ssize_t size)
    cdef void ended(self, int status, str error, int64_t request_ns, int64_t response_ns, int64_t now_ns)
    cdef StatusCount find(self, int status, str error)


cdef class DetectSeries(Series):
    cdef int64_t results[DETECT_RESULTS]
    cdef int64_t lasted[DETECT_BUCKETS]
    cdef int64_t lasted_ns
    cdef void ended(self, DetectResult result, int64_t elapsed_ns, int64_t now_ns)


cdef str error_word(str error)
cdef str reset_reason(uint32_t code)
