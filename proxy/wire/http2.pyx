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


include "http2_callbacks.pxi"
