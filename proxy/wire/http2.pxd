# One HTTP/2 connection (RFC 9113) on libnghttp2, sans I/O: bytes in, hooks called; bytes out when asked.
#
#   Session                  framing, HPACK, flow control, and the limits both ends share
#     <- http2_events        a client that reports events as Python objects: control streams
#     <- stack.http2_*       the data path: hooks compiled, nothing allocated per frame
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from proxy.wire.nghttp2 cimport nghttp2_session

cdef enum:
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    REFUSED_STREAM = 7
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11

cdef enum:
    RECENT = 64
    MAX_FIELDS = 128             # of one section as it is handed on
    MAX_SECTION = 65536          # decoded bytes of one section, counted as in RFC 9113 section 6.5.2


cdef class Allowance:
    """Something a peer may do so often: `burst` at once, `rate` per second in the long run."""
    cdef double left, burst, rate
    cdef int64_t stamp_ns
    cdef bint spend(self, int64_t now_ns)


cdef class Session:
    cdef nghttp2_session* session
    cdef object failure              # what a hook raised: libnghttp2 cannot carry an exception through
    cdef readonly bint failed
    cdef readonly str abuse          # which limit the peer broke, or None
    cdef int64_t now_ns              # set by whoever feeds; the session has no clock
    cdef Allowance resets, control_frames
    cdef bint is_server
    cdef bint in_settings            # a SETTINGS frame has begun
    cdef size_t queued               # frames that waited to be sent just before it was heeded
    cdef int32_t highest_stream      # that the peer has opened
    cdef list skipped                # ranges of numbers below it that the peer left out
    cdef int32_t[RECENT] own_resets  # streams we reset last, whose frames may still be on the way
    cdef int next_own_reset

    cdef int open(self, bint server, int max_streams, int connection_window) except -1
    cdef int feed(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take(self, const uint8_t** data) except -1
    cdef int check(self, Py_ssize_t code) except -1
    cdef void keep(self, object error) noexcept
    cdef int calm_down(self, str abuse) except -1
    cdef bint is_over(self)
    cdef int headers_on_closed(self, int32_t stream_id) except -1
    cdef int settings_heeded(self) except -1
    cdef int oversized(self) except -1

    # Hooks: what the peer did.
    cdef int section_began(self, int32_t stream_id) except -1
    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1
    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1
    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1
    cdef int body_ended(self, int32_t stream_id) except -1
    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1
    cdef int stream_faulted(self, int32_t stream_id, uint32_t error_code) except -1  # it broke a rule, and was reset
    cdef int going_away(self, int32_t last_stream_id, uint32_t error_code, bytes debug) except -1
    cdef int pinged(self, bytes payload) except -1
