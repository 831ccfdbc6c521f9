"""The second generation of HTTP metrics: streams by route and by backend. Pure: no clock of its own, no text.

One object holds every slot of one set of labels, resolved once per connection or destination; a request only increments
integers in it. Which of them a family shows, and under what name, is in `registry`.
"""
from libc.stdint cimport int64_t, uint32_t

from proxy.telemetry.counters cimport MAX_OUTCOMES, OTHER, Series

DURATION_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0)
"""Seconds. Families with fewer bounds have a part of these, and sum up what lies between."""
FRAME_BOUNDS = (128, 1024, 10240)
"""Bytes of one piece of a body."""
DETECT_BOUNDS = (0.001, 0.1)
"""Seconds until it was known what a connection speaks."""
DETECT_NAMES = ("http/1", "http/2", "not_http", "read_timeout", "error")
"""DetectResult as a label, in its order."""

cdef int64_t[DURATION_BUCKETS - 1] DURATION_NS
for _index, _bound in enumerate(DURATION_BOUNDS):
    DURATION_NS[_index] = round(_bound * 1e9)

ERRORS = {
    "failfast": "FAIL_FAST",
    "loadshed": "LOAD_SHED",
    "request timeout": "REQUEST_TIMEOUT",
    "response timeout": "RESPONSE_STREAM_TIMEOUT",
    "response headers timeout": "RESPONSE_HEADERS_TIMEOUT",
    "stream idle timeout": "IDLE_TIMEOUT",
    "cancelled": "CANCEL",
    "h2(CANCEL)": "CANCEL",
    "h2(REFUSED_STREAM)": "REFUSED",
    "h2(ENHANCE_YOUR_CALM)": "ENHANCE_YOUR_CALM",
    "refused": "REFUSED",
    "goaway": "GO_AWAY",
    "i/o": "IO",
    "peer timeout": "IO",
    "connection closed": "IO",
    "connection closed mid-response": "IO",
    "connection closed before response": "IO",
}
"""Our causes in Linkerd's closed list of words: a label of these can hold nothing that a peer wrote."""


cdef str error_word(str error):
    """`error` as the second generation calls it, "" for None."""
    if error is None:
        return ""
    found = ERRORS.get(error)
    if found is None:
        return "RESET" if error.startswith("h2(") else "UNKNOWN"
    return <str>found


REASONS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)
RESETS = tuple(f"h2({reason})" for reason in REASONS)
"""What a stream that was reset is counted as in response_total: RFC 9113 section 7, in Linkerd's form."""


cdef str reset_reason(uint32_t code):
    """The error of a stream that its peer reset; codes that HTTP/2 does not define are one."""
    return <str>RESETS[code] if code < 14 else "h2(unknown)"


cdef class StatusCount:
    """How many streams ended with one status and error."""


cdef class StreamSeries(Series):
    def __init__(self, tuple labels):
        super().__init__(labels)
        self.statuses = []

    cdef void began(self, int64_t now_ns):
        self.requests += 1
        self.touched_ns = now_ns

    cdef void request_frame(self, Py_ssize_t size):
        self.request_frames[0 if size <= 128 else 1 if size <= 1024 else 2 if size <= 10240 else 3] += 1
        self.request_bytes += size

    cdef void response_frame(self, Py_ssize_t size):
        self.response_frames[0 if size <= 128 else 1 if size <= 1024 else 2 if size <= 10240 else 3] += 1
        self.response_bytes += size

    cdef void ended(self, int status, str error, int64_t request_ns, int64_t response_ns, int64_t now_ns):
        """The stream is over: `request_ns` since its request began, `response_ns` since its request was complete.
        `error` is one of the words that `error_word` gives."""
        cdef StatusCount last = self.last
        cdef int index = 0
        self.touched_ns = now_ns
        request_ns = max(request_ns, 0)
        response_ns = max(response_ns, 0)
        while index < DURATION_BUCKETS - 1 and request_ns > DURATION_NS[index]:
            index += 1
        self.request_lasted[index] += 1
        self.request_ns += request_ns
        index = 0
        while index < DURATION_BUCKETS - 1 and response_ns > DURATION_NS[index]:
            index += 1
        self.response_lasted[index] += 1
        self.response_ns += response_ns
        if last is None or last.status != status or last.error is not error:
            last = self.last = self.find(status, error)
        last.count += 1

    cdef StatusCount find(self, int status, str error):
        cdef StatusCount found
        for item in self.statuses:
            found = <StatusCount>item
            if found.status == status and found.error == error:
                return found
        if len(self.statuses) >= MAX_OUTCOMES and status != OTHER:
            return self.find(OTHER, error)
        found = StatusCount.__new__(StatusCount)
        found.status = status
        found.error = error
        self.statuses.append(found)
        return found

    # As the exposition reads it: counts per bucket, not cumulative, the last for +Inf; and sums.

    def request_durations(self) -> tuple:
        cdef int i
        return tuple([self.request_lasted[i] for i in range(DURATION_BUCKETS)]), self.request_ns / 1e9

    def response_durations(self) -> tuple:
        cdef int i
        return tuple([self.response_lasted[i] for i in range(DURATION_BUCKETS)]), self.response_ns / 1e9

    def request_frame_sizes(self) -> tuple:
        cdef int i
        return tuple([self.request_frames[i] for i in range(FRAME_BUCKETS)]), self.request_bytes

    def response_frame_sizes(self) -> tuple:
        cdef int i
        return tuple([self.response_frames[i] for i in range(FRAME_BUCKETS)]), self.response_bytes


cdef class DetectSeries(Series):
    """How protocol detection ended on the connections of one port or destination, and how long it took."""

    cdef void ended(self, DetectResult result, int64_t elapsed_ns, int64_t now_ns):
        self.results[<int>result] += 1
        self.lasted[0 if elapsed_ns <= 1_000_000 else 1 if elapsed_ns <= 100_000_000 else 2] += 1
        self.lasted_ns += elapsed_ns
        self.touched_ns = now_ns

    def durations(self) -> tuple:
        cdef int i
        return tuple([self.lasted[i] for i in range(DETECT_BUCKETS)]), self.lasted_ns / 1e9

    def counts(self) -> list:
        """(result, count) for each result that was seen."""
        cdef int i
        return [(DETECT_NAMES[i], self.results[i]) for i in range(DETECT_RESULTS) if self.results[i]]
