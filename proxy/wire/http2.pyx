"""HTTP/2 sessions on libnghttp2, sans I/O: `receive_data` turns bytes into events, `data_to_send` calls into bytes.

What belongs here: framing, flow control, limits that protect this process. What does not: sockets, clocks, gRPC.
libnghttp2 enforces RFC 9113; the limits on decoded headers below are ours, since its own count only encoded bytes.
"""

from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.wire cimport nghttp2 as ng

CONNECTION_WINDOW = 1 << 20
"""What a peer may send on all streams together before we have consumed it: bounds memory per connection."""
MAX_HEADERS = 128
"""Header fields in one section: bounds what a small HPACK block can be expanded to."""
MAX_HEADER_BYTES = 65536
"""Decoded bytes of names and values in one section, counted as in RFC 9113 section 6.5.2 (32 per field)."""
MAX_OUTBOUND_ACKS = 100
"""Acknowledgements waiting to be sent: a peer that floods us and reads nothing is cut off (CVE-2019-9512)."""

NO_ERROR = 0
INTERNAL_ERROR = 2
REFUSED_STREAM = 7
CANCEL = 8

cdef Py_ssize_t _max_headers = MAX_HEADERS
cdef Py_ssize_t _max_header_bytes = MAX_HEADER_BYTES


class HTTP2Error(Exception):
    """The session cannot go on (the peer broke the protocol) or refused a call; the message is libnghttp2's."""


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


cdef class Section:
    """The header section being received on one stream, with what it has cost so far."""
    cdef list headers
    cdef Py_ssize_t size


cdef class Outgoing:
    def __cinit__(self):
        self.chunks = deque()


cdef class Session:
    """What both ends of a connection share. Not for direct use."""

    def __cinit__(self):
        self.session = NULL
        self.events = []
        self.outgoing = {}
        self.sections = {}

    def __dealloc__(self):
        if self.session is not NULL:
            ng.nghttp2_session_del(self.session)

    cdef int open(self, bint server) except -1:
        """Make the nghttp2 session and queue our SETTINGS."""
        cdef ng.nghttp2_session_callbacks *callbacks = NULL
        cdef ng.nghttp2_option *option = NULL
        cdef ng.nghttp2_settings_entry settings[2]
        cdef int code
        if ng.nghttp2_session_callbacks_new(&callbacks) != 0 or ng.nghttp2_option_new(&option) != 0:
            ng.nghttp2_session_callbacks_del(callbacks)
            raise MemoryError()
        ng.nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, _on_begin_headers)
        ng.nghttp2_session_callbacks_set_on_header_callback(callbacks, _on_header)
        ng.nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, _on_frame)
        ng.nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, _on_data)
        ng.nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, _on_stream_close)
        # A window is given back only when the data was consumed, or a slow reader would buffer without bound.
        ng.nghttp2_option_set_no_auto_window_update(option, 1)
        ng.nghttp2_option_set_max_outbound_ack(option, MAX_OUTBOUND_ACKS)
        if server:
            code = ng.nghttp2_session_server_new2(&self.session, callbacks, <void *>self, option)
        else:
            code = ng.nghttp2_session_client_new2(&self.session, callbacks, <void *>self, option)
        ng.nghttp2_session_callbacks_del(callbacks)
        ng.nghttp2_option_del(option)
        self.check(code)
        settings[0].settings_id = ng.NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[0].value = MAX_HEADER_BYTES
        settings[1].settings_id = ng.NGHTTP2_SETTINGS_ENABLE_PUSH
        settings[1].value = 0
        # A server must not send ENABLE_PUSH other than 0 and need not send it at all (RFC 9113 section 6.5.2).
        self.check(ng.nghttp2_submit_settings(self.session, ng.NGHTTP2_FLAG_NONE, settings, 1 if server else 2))
        self.check(ng.nghttp2_session_set_local_window_size(
            self.session, ng.NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW))
        return 0

    cdef int check(self, Py_ssize_t code) except -1:
        if code < 0:
            if code == ng.NGHTTP2_ERR_NOMEM:
                raise MemoryError()
            raise HTTP2Error(ng.nghttp2_strerror(<int>code).decode("ascii"))
        return 0

    cdef int usable(self) except -1:
        if self.failed:
            raise HTTP2Error("the session has failed")
        return 0

    cdef void keep(self, object error) noexcept:
        """Remember what a callback raised: libnghttp2 cannot carry a Python exception through."""
        if self.failure is None:
            self.failure = error

    def receive_data(self, bytes data not None):
        """Bytes from the peer; returns the events they complete. Raises HTTP2Error if the peer broke the protocol."""
        cdef ssize_t n
        cdef list events
        self.usable()
        n = ng.nghttp2_session_mem_recv(
            self.session, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if self.failure is not None:
            self.failed = True
            raise self.failure
        if n < 0:
            self.failed = True
            self.check(n)
        events = self.events
        self.events = []
        return events

    def data_to_send(self):
        """All bytes that may be sent now; empty when there are none, or when the peer's window is closed."""
        cdef const uint8_t *pointer
        cdef ssize_t n
        cdef list pieces = None
        cdef bytes first = None
        self.usable()
        while True:
            n = ng.nghttp2_session_mem_send(self.session, &pointer)
            if self.failure is not None:
                self.failed = True
                raise self.failure
            if n < 0:
                self.failed = True
                self.check(n)
            if n == 0:
                break
            piece = PyBytes_FromStringAndSize(<const char *>pointer, n)
            if first is None:
                first = piece
            elif pieces is None:
                pieces = [first, piece]
            else:
                pieces.append(piece)
        if pieces is not None:
            return b"".join(pieces)
        return first if first is not None else b""

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


cdef class ClientSession(Session):
    """The side that asks. Its preface and SETTINGS are in the first `data_to_send`."""

    def __init__(self):
        self.open(False)

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
                provider.read_callback = _read_body
            stream_id = ng.nghttp2_submit_request(
                self.session, NULL, fields, n, &provider if outgoing is not None else NULL, NULL)
        finally:
            free(fields)
        self.check(stream_id)
        if outgoing is not None:
            self.outgoing[stream_id] = outgoing
        return stream_id


# Callbacks. libnghttp2 copies the names and values of a request, so `fields` may be freed; it keeps `user_data` and
# `source.ptr` as they are: the session is alive while its own method runs, and `outgoing` holds a body until its close.

cdef int _on_begin_headers(ng.nghttp2_session *_, const ng.nghttp2_frame *frame, void *user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef Section section
    try:
        section = Section()
        section.headers = []
        self.sections[frame.hd.stream_id] = section
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int _on_header(
        ng.nghttp2_session *_, const ng.nghttp2_frame *frame, const uint8_t *name, size_t namelen,
        const uint8_t *value, size_t valuelen, uint8_t flags, void *user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef Section section
    try:
        section = self.sections.get(frame.hd.stream_id)
        if section is None:
            return 0
        section.size += namelen + valuelen + 32
        if section.size > _max_header_bytes or len(section.headers) >= _max_headers:
            # The stream is reset by the library; the connection lives on.
            return ng.NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
        section.headers.append((
            PyBytes_FromStringAndSize(<const char *>name, namelen),
            PyBytes_FromStringAndSize(<const char *>value, valuelen),
        ))
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int _on_frame(ng.nghttp2_session *_, const ng.nghttp2_frame *frame, void *user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef GoAway goaway
    cdef PingAcknowledged ack
    try:
        if frame.hd.type == ng.NGHTTP2_HEADERS:
            _finish_section(self, frame)
        elif frame.hd.type == ng.NGHTTP2_GOAWAY:
            goaway = GoAway()
            goaway.last_stream_id = frame.goaway.last_stream_id
            goaway.error_code = frame.goaway.error_code
            goaway.debug = PyBytes_FromStringAndSize(
                <const char *>frame.goaway.opaque_data, frame.goaway.opaque_data_len)
            self.events.append(goaway)
        elif frame.hd.type == ng.NGHTTP2_PING and frame.hd.flags & ng.NGHTTP2_FLAG_ACK:
            ack = PingAcknowledged()
            ack.payload = PyBytes_FromStringAndSize(<const char *>frame.ping.opaque_data, 8)
            self.events.append(ack)
        if (
            (frame.hd.type == ng.NGHTTP2_HEADERS or frame.hd.type == ng.NGHTTP2_DATA)
            and frame.hd.flags & ng.NGHTTP2_FLAG_END_STREAM
        ):
            _append(self, StreamEnded(), frame.hd.stream_id)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int _finish_section(Session self, const ng.nghttp2_frame *frame) except -1:
    """A header section is complete: name it by its place in the stream (RFC 9113 section 8.1)."""
    cdef Section section = self.sections.pop(frame.hd.stream_id, None)
    cdef Headers head
    cdef Trailers trailers
    if section is None:
        return 0
    head = Headers()
    head.headers = section.headers
    head.end_stream = frame.hd.flags & ng.NGHTTP2_FLAG_END_STREAM != 0
    if frame.headers.cat == ng.NGHTTP2_HCAT_HEADERS:
        # The library reports the final response after a 1xx in this category too; only a first section has a status.
        if not (section.headers and section.headers[0][0] == b":status"):
            trailers = Trailers()
            trailers.headers = section.headers
            _append(self, trailers, frame.hd.stream_id)
            return 0
    head.informational = _is_informational(section.headers)
    _append(self, head, frame.hd.stream_id)
    return 0


cdef bint _is_informational(list headers):
    cdef bytes status
    if not headers or headers[0][0] != b":status":
        return False
    status = headers[0][1]
    return len(status) == 3 and status[0] == c"1"


cdef int _append(Session self, Event event, int32_t stream_id) except -1:
    event.stream_id = stream_id
    self.events.append(event)
    return 0


cdef int _on_data(
        ng.nghttp2_session *_, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t length,
        void *user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef Data event
    try:
        event = Data()
        event.data = PyBytes_FromStringAndSize(<const char *>data, length)
        _append(self, event, stream_id)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int _on_stream_close(
        ng.nghttp2_session *_, int32_t stream_id, uint32_t error_code, void *user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef StreamClosed event
    try:
        self.sections.pop(stream_id, None)
        self.outgoing.pop(stream_id, None)
        event = StreamClosed()
        event.error_code = error_code
        _append(self, event, stream_id)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef ssize_t _read_body(
        ng.nghttp2_session *_, int32_t stream_id, uint8_t *buf, size_t length, uint32_t *data_flags,
        ng.nghttp2_data_source *source, void *user_data) noexcept:
    """Fill a DATA frame; the library has already cut `length` to both windows and the frame size."""
    cdef Session self = <Session>user_data
    cdef Outgoing body = <Outgoing>source.ptr
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
