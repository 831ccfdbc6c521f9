"""A client's HTTP/2 connection, sans I/O: `receive_data` turns bytes into events, `data_to_send` calls into bytes.

For control streams, in Python; the data path has compiled hooks of its own (proxy.stack.http2_connection).
"""
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.wire cimport http2
from proxy.wire cimport nghttp2 as ng
from proxy.wire.http2 cimport Session

from proxy.wire.http2 import HTTP2Error

CONNECTION_WINDOW = 1 << 20
"""What the peer may send on all streams together before we have consumed it: bounds memory per connection."""
MAX_HEADERS = http2.MAX_FIELDS
"""Header fields in one section: bounds what a small HPACK block can be expanded to."""
MAX_HEADER_BYTES = http2.MAX_SECTION
"""Decoded bytes of names and values in one section, counted as in RFC 9113 section 6.5.2 (32 per field)."""

NO_ERROR = http2.NO_ERROR
INTERNAL_ERROR = http2.INTERNAL_ERROR
REFUSED_STREAM = http2.REFUSED_STREAM
CANCEL = http2.CANCEL


cdef class Event:
    def __repr__(self):
        cdef str name = type(self).__name__
        fields = [f"{key}={getattr(self, key)!r}" for key in self.__match_args__]
        return f"{name}({', '.join(fields)})"

    __match_args__ = ("stream_id",)


cdef class Headers(Event):
    __match_args__ = ("stream_id", "headers", "informational", "end_stream")


cdef class Data(Event):
    __match_args__ = ("stream_id", "data")


cdef class Trailers(Event):
    __match_args__ = ("stream_id", "headers")


cdef class StreamEnded(Event):
    pass


cdef class StreamClosed(Event):
    __match_args__ = ("stream_id", "error_code")


cdef class GoAway(Event):
    __match_args__ = ("last_stream_id", "error_code", "debug")


cdef class PingAcknowledged(Event):
    __match_args__ = ("payload",)


cdef class Outgoing:
    def __cinit__(self):
        self.chunks = deque()


cdef class ClientSession(Session):
    """The side that asks. Its preface and SETTINGS are in the first `data_to_send`."""

    def __cinit__(self):
        self.events = []
        self.outgoing = {}

    def __init__(self):
        self.open(False, 0, CONNECTION_WINDOW)

    cdef int usable(self) except -1:
        if self.failed:
            raise HTTP2Error("the session has failed")
        return 0

    def receive_data(self, bytes data not None):
        """Bytes from the peer; returns the events they complete. Raises HTTP2Error if the peer broke the protocol."""
        self.feed(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.take_events()

    def data_to_send(self):
        """All bytes that may be sent now; empty when there are none, or when the peer's window is closed."""
        cdef const uint8_t* pointer
        cdef Py_ssize_t count
        cdef list pieces = []
        self.usable()
        while True:
            count = self.take(&pointer)
            if count == 0:
                return b"".join(pieces)
            pieces.append(PyBytes_FromStringAndSize(<const char*>pointer, count))

    def send_data(self, int32_t stream_id, bytes data not None, bint end_stream=False):
        """Queue a piece of a body whose `request` was made with end_stream=False."""
        cdef Outgoing body = self.outgoing.get(stream_id)
        self.usable()
        if body is None or body.ended:
            raise HTTP2Error(f"stream {stream_id} takes no more data")
        if data:
            body.chunks.append(data)
            body.buffered += len(data)
        body.ended = end_stream
        if body.deferred:
            body.deferred = False
            self.check(ng.nghttp2_session_resume_data(self.session, stream_id))

    def buffered(self, int32_t stream_id):
        """Bytes of a body that wait for the peer's window: the caller stops producing when it is high."""
        cdef Outgoing body = self.outgoing.get(stream_id)
        return 0 if body is None else body.buffered

    def consume(self, int32_t stream_id, Py_ssize_t n):
        """Give the peer back the window of `n` bytes of Data that have been dealt with."""
        self.usable()
        self.check(ng.nghttp2_session_consume(self.session, stream_id, n))

    def reset(self, int32_t stream_id, uint32_t error_code=CANCEL):
        """End a stream at once. Its StreamClosed follows from `receive_data` or `take_events`."""
        self.usable()
        self.check(ng.nghttp2_submit_rst_stream(self.session, ng.NGHTTP2_FLAG_NONE, stream_id, error_code))

    def ping(self, bytes payload not None=b"\0\0\0\0\0\0\0\0"):
        """Ask for a sign of life; PingAcknowledged is the answer."""
        if len(payload) != 8:
            raise ValueError("a PING carries exactly 8 bytes (RFC 9113 section 6.7)")
        self.usable()
        self.check(ng.nghttp2_submit_ping(
            self.session, ng.NGHTTP2_FLAG_NONE, <const uint8_t *>PyBytes_AS_STRING(payload)))

    def terminate(self, uint32_t error_code=NO_ERROR):
        """Queue a GOAWAY; after it no stream is accepted."""
        self.usable()
        self.check(ng.nghttp2_session_terminate_session(self.session, error_code))

    def take_events(self):
        """Events that calls other than `receive_data` made: a reset of ours closes its stream while being sent."""
        events = self.events
        self.events = []
        return events

    @property
    def alive(self):
        """Whether the session has anything left to say or hear; false once GOAWAY has run its course."""
        if self.failed:
            return False
        return bool(ng.nghttp2_session_want_read(self.session) or ng.nghttp2_session_want_write(self.session))

    def statistics(self):
        """What is under way, for the admin page and tests."""
        return {
            "failed": bool(self.failed),
            "streams_sending": len(self.outgoing),
            "bytes_buffered": sum([(<Outgoing>body).buffered for body in self.outgoing.values()]),
        }

    @property
    def can_request(self):
        """Whether a new stream may be opened: not after a GOAWAY in either direction."""
        return not self.failed and bool(ng.nghttp2_session_check_request_allowed(self.session))

    def request(self, list headers not None, bytes body=None, bint end_stream=True):
        """Open a stream; returns its number. With end_stream=False the body continues in `send_data`.

        Requests beyond the peer's MAX_CONCURRENT_STREAMS wait inside the session.
        """
        cdef Py_ssize_t n = len(headers)
        cdef ng.nghttp2_nv *fields
        cdef ng.nghttp2_data_provider provider
        cdef Outgoing outgoing = None
        cdef int32_t stream_id
        cdef bytes name, value
        if not self.can_request:
            raise HTTP2Error("the session takes no new streams")
        fields = <ng.nghttp2_nv *>malloc((n or 1) * sizeof(ng.nghttp2_nv))
        if fields is NULL:
            raise MemoryError()
        try:
            for i in range(n):
                name, value = headers[i]
                fields[i].name = <uint8_t *>PyBytes_AS_STRING(name)
                fields[i].namelen = PyBytes_GET_SIZE(name)
                fields[i].value = <uint8_t *>PyBytes_AS_STRING(value)
                fields[i].valuelen = PyBytes_GET_SIZE(value)
                fields[i].flags = ng.NGHTTP2_NV_FLAG_NONE
            if body or not end_stream:
                outgoing = Outgoing()
                if body:
                    outgoing.chunks.append(body)
                    outgoing.buffered = len(body)
                outgoing.ended = end_stream
                provider.source.ptr = <void *>outgoing
                provider.read_callback = read_body
            stream_id = ng.nghttp2_submit_request(
                self.session, NULL, fields, n, &provider if outgoing is not None else NULL, NULL)
        finally:
            free(fields)
        self.check(stream_id)
        if outgoing is not None:
            self.outgoing[stream_id] = outgoing
        return stream_id

    cdef int append(self, Event event, int32_t stream_id) except -1:
        event.stream_id = stream_id
        self.events.append(event)
        return 0

    cdef int section_began(self, int32_t stream_id) except -1:
        self.headers = []
        self.section_size = 0
        return 0

    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1:
        self.section_size += name_size + value_size + 32
        if self.section_size > http2.MAX_SECTION or len(self.headers) >= http2.MAX_FIELDS:
            return 1
        self.headers.append((
            PyBytes_FromStringAndSize(<const char*>name, name_size),
            PyBytes_FromStringAndSize(<const char*>value, value_size),
        ))
        return 0

    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1:
        """Name a section by what it holds (RFC 9113 section 8.1): only trailers have no status."""
        cdef Headers head
        cdef Trailers trailers
        cdef bytes status
        if self.headers and self.headers[0][0] == b":status":
            status = self.headers[0][1]
            head = Headers()
            head.headers = self.headers
            head.end_stream = end_stream
            head.informational = len(status) == 3 and status[0] == c"1"
            self.append(head, stream_id)
        else:
            trailers = Trailers()
            trailers.headers = self.headers
            self.append(trailers, stream_id)
        if end_stream:
            self.append(StreamEnded(), stream_id)
        return 0

    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1:
        cdef Data event = Data()
        event.data = PyBytes_FromStringAndSize(data, size)
        return self.append(event, stream_id)

    cdef int body_ended(self, int32_t stream_id) except -1:
        return self.append(StreamEnded(), stream_id)

    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1:
        cdef StreamClosed event = StreamClosed()
        event.error_code = error_code
        self.outgoing.pop(stream_id, None)
        return self.append(event, stream_id)

    cdef int going_away(self, int32_t last_stream_id, uint32_t error_code, bytes debug) except -1:
        cdef GoAway event = GoAway()
        event.last_stream_id = last_stream_id
        event.error_code = error_code
        event.debug = debug
        return self.append(event, 0)

    cdef int pinged(self, bytes payload) except -1:
        cdef PingAcknowledged event = PingAcknowledged()
        event.payload = payload
        return self.append(event, 0)


cdef ssize_t read_body(
        ng.nghttp2_session* _, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
        ng.nghttp2_data_source* source, void* user_data) noexcept:
    """Fill a DATA frame; the library has already cut `length` to both windows and the frame size."""
    cdef ClientSession self = <ClientSession>user_data
    cdef Outgoing body = <Outgoing>source.ptr  # `outgoing` holds it until its stream is closed
    cdef size_t written = 0
    cdef size_t n
    cdef bytes chunk
    try:
        while written < length and body.chunks:
            chunk = body.chunks[0]
            n = PyBytes_GET_SIZE(chunk) - body.offset
            if n > length - written:
                n = length - written
            memcpy(buf + written, PyBytes_AS_STRING(chunk) + body.offset, n)
            written += n
            body.offset += n
            body.buffered -= n
            if body.offset == PyBytes_GET_SIZE(chunk):
                body.chunks.popleft()
                body.offset = 0
        if body.ended and not body.chunks:
            data_flags[0] |= ng.NGHTTP2_DATA_FLAG_EOF
        elif written == 0:
            body.deferred = True
            return ng.NGHTTP2_ERR_DEFERRED
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return written
