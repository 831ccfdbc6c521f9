# HTTP/1.x messages (RFC 9112), strict. A pull parser: feed it bytes by asking for the next event.
#
#   HEAD -> BODY_LENGTH | BODY_CHUNK_SIZE | BODY_UNTIL_CLOSE | DONE
#   BODY_CHUNK_SIZE -> BODY_CHUNK_DATA -> BODY_CHUNK_END -> BODY_CHUNK_SIZE ... -> TRAILERS -> DONE
from libc.stdint cimport int64_t

from proxy.wire.fields cimport Field

cdef enum:
    MAX_FIELDS = 128          # fields of one message; a parsed head is an array of this length
    MAX_HEAD = 65536          # bytes of one head: request line and fields
    MAX_TRAILERS = 8192       # bytes of all trailer fields
    MAX_CHUNK_LINE = 1024     # bytes of one chunk-size line with its extensions (which are dropped)
    MAX_CHUNK_EXCESS = 16384  # bytes of chunk lines of one message beyond what its data may cost (CVE-2023-39326)
    CHUNK_ALLOWANCE = 16      # bytes of framing that each chunk may cost besides as many as it has data
    MAX_METHOD = 32           # bytes of a method

cdef enum Event:
    NEED_DATA      # all input is consumed
    EVENT_HEAD     # `head` is valid until the next call
    EVENT_DATA     # a piece of the body
    EVENT_TRAILERS  # `head` holds the trailer fields
    EVENT_END      # the message is over; call `restart` for the next
    EVENT_ERROR    # `error` and `error_status` say why; the connection cannot go on

cdef enum Method:
    METHOD_OTHER
    METHOD_GET
    METHOD_HEAD
    METHOD_CONNECT
    METHOD_OPTIONS

cdef enum Framing:
    FRAMING_NONE
    FRAMING_LENGTH
    FRAMING_CHUNKED
    FRAMING_UNTIL_CLOSE

cdef struct Head:
    Method method
    const char* method_text
    int method_size
    const char* target
    int target_size
    const char* host          # the one Host field, or NULL
    int host_size
    int status
    const char* reason
    int reason_size
    int minor_version
    int field_count
    Framing framing
    int64_t content_length    # -1 unless FRAMING_LENGTH
    bint wants_close          # Connection: close, or HTTP/1.0 without keep-alive
    bint upgrade              # an Upgrade field named in Connection, to anything but HTTP/2
    bint expects_continue
    Field fields[MAX_FIELDS]


cdef class MessageReader:
    cdef bint is_request
    cdef int state
    cdef Method request_method  # for responses: the method answered, set before the head arrives
    cdef int64_t remaining
    cdef int64_t chunk_size
    cdef int chunk_digits, chunk_line
    cdef int64_t chunk_excess
    cdef char* held             # a head or trailer section that came in pieces
    cdef Py_ssize_t held_size, held_capacity, scanned
    cdef bint held_used
    cdef readonly str error
    cdef readonly int error_status
    cdef Event next_event(self, const char** cursor, const char* end, const char** data, Py_ssize_t* size)
    cdef Event end_of_input(self)
    cdef void restart(self)
    cdef bint is_idle(self)
    cdef bint is_in_head(self)
    cdef bint body_is_read(self)
    cdef Event fail(self, int status, str error)
    cdef Event read_head(self, const char** cursor, const char* end)
    cdef Event read_trailers(self, const char** cursor, const char* end)
    cdef void begin_chunks(self)
    cdef Event read_chunk_size(self, const char** cursor, const char* end)
    cdef int hold(self, const char* data, Py_ssize_t size) except -1
    cdef Event parse_head(self, const char* data, const char* end)
    cdef Event parse_request_line(self, const char* line, const char* end)
    cdef Event parse_status_line(self, const char* line, const char* end)
    cdef Event parse_fields(self, const char* at, const char* end)
    cdef Event note_field(self, Field* field)
    cdef void mark_connection_options(self)
    cdef Event parse_trailers(self, const char* data, const char* end)
    cdef Event frame_request(self)
    cdef Event frame_response(self)

cdef Head head  # of the message parsed last; one per process, valid until the next call into any reader
