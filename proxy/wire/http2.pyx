"""HTTP/2 connections on libnghttp2, sans I/O. What belongs here: framing, and the limits that protect this process.
What does not: sockets, clocks, what a stream is for.

libnghttp2 enforces RFC 9113. Ours on top: how much one header section may decode to (its own limit counts encoded
bytes only), and how often a peer may reset streams or send frames that cost us an answer.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from proxy.wire cimport nghttp2 as ng

MAX_OUTBOUND_ACKS = 100
"""Acknowledgements waiting to be sent: a peer that floods us and reads nothing is cut off (CVE-2019-9512)."""

# Resets by a peer before its stream was over (CVE-2023-44487), and resets of ours that a peer provokes
# (CVE-2025-8671). One connection between proxies carries the cancelled calls of many clients, so the rate is high.
cdef double RESET_BURST = 1000
cdef double RESET_RATE = 250
# PING, SETTINGS, PRIORITY and DATA frames that carry nothing (CVE-2019-9512, -9515, -9518).
cdef double CONTROL_BURST = 1000
cdef double CONTROL_RATE = 250


cdef enum:
    LIBRARY_RESET_BURST = 10000   # libnghttp2 has a limit on resets too; ours, which names its cause, comes first
    LIBRARY_RESET_RATE = 1000
    MAX_CONTINUATIONS = 128
    OVERSIZED_COST = 10           # a section that unfolds beyond all measure costs as much as so many resets
    MAX_SKIPPED = 16              # ranges of stream numbers remembered as left out


class HTTP2Error(Exception):
    """The session cannot go on (the peer broke the protocol) or refused a call; the message is libnghttp2's."""


cdef class Allowance:
    def __cinit__(self, double burst, double rate):
        self.left = self.burst = burst
        self.rate = rate

    cdef bint spend(self, int64_t now_ns):
        """Take one; False when there is none left."""
        if now_ns > self.stamp_ns:
            self.left = min(self.burst, self.left + (now_ns - self.stamp_ns) * self.rate / 1e9)
            self.stamp_ns = now_ns
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


cdef class Session:
    """Not for direct use: subclasses override the hooks, which may submit frames but never feed or take."""

    def __cinit__(self):
        self.session = NULL
        self.skipped = []
        self.resets = Allowance(RESET_BURST, RESET_RATE)
        self.control_frames = Allowance(CONTROL_BURST, CONTROL_RATE)

    def __dealloc__(self):
        if self.session != NULL:
            ng.nghttp2_session_del(self.session)

    cdef int open(self, bint server, int max_streams, int connection_window) except -1:
        """Make the nghttp2 session and queue our SETTINGS. `max_streams` is what a client may have open at a time,
        `connection_window` what a peer may send on all streams together before any of it was handed on."""
        cdef ng.nghttp2_option* option = NULL
        cdef ng.nghttp2_settings_entry settings[4]
        cdef int code
        cdef int count = 0
        self.is_server = server
        if ng.nghttp2_option_new(&option) != 0:
            raise MemoryError
        # A window is given back only when the data was handed on, or a slow reader would buffer without bound.
        ng.nghttp2_option_set_no_auto_window_update(option, 1)
        ng.nghttp2_option_set_max_outbound_ack(option, MAX_OUTBOUND_ACKS)
        # It counts the pieces in which a frame's header arrives; what a section may hold is limited anyway.
        ng.nghttp2_option_set_max_continuations(option, MAX_CONTINUATIONS)
        ng.nghttp2_option_set_stream_reset_rate_limit(option, LIBRARY_RESET_BURST, LIBRARY_RESET_RATE)
        ng.nghttp2_option_set_max_send_header_block_length(option, 2 * MAX_SECTION)
        if server:
            code = ng.nghttp2_session_server_new2(&self.session, CALLBACKS, <void*>self, option)
        else:
            code = ng.nghttp2_session_client_new2(&self.session, CALLBACKS, <void*>self, option)
        ng.nghttp2_option_del(option)
        self.check(code)
        settings[0].settings_id = ng.NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[0].value = MAX_SECTION
        if server:
            settings[1].settings_id = ng.NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
            settings[1].value = max_streams
            settings[2].settings_id = ng.NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL
            settings[2].value = 1
            count = 3
        else:
            settings[1].settings_id = ng.NGHTTP2_SETTINGS_ENABLE_PUSH
            settings[1].value = 0
            count = 2
        self.check(ng.nghttp2_submit_settings(self.session, ng.NGHTTP2_FLAG_NONE, settings, count))
        self.check(ng.nghttp2_session_set_local_window_size(
            self.session, ng.NGHTTP2_FLAG_NONE, 0, connection_window))
        return 0

    cdef int check(self, Py_ssize_t code) except -1:
        if code < 0:
            if code == ng.NGHTTP2_ERR_NOMEM:
                raise MemoryError
            raise HTTP2Error(ng.nghttp2_strerror(<int>code).decode("ascii"))
        return 0

    cdef void keep(self, object error) noexcept:
        if self.failure is None:
            self.failure = error

    cdef int feed(self, const char* data, Py_ssize_t size) except -1:
        """Bytes from the peer; hooks are called for what they complete. Raises HTTP2Error if the session cannot go
        on, and whatever a hook raised."""
        cdef ssize_t count
        if self.failed:
            raise HTTP2Error("the session has failed")
        if self.abuse is not None:
            return 0  # told to go: whatever it still says has cost enough
        if self.in_settings:
            self.queued = ng.nghttp2_session_get_outbound_queue_size(self.session)
        count = ng.nghttp2_session_mem_recv(self.session, <const uint8_t*>data, size)
        if self.failure is not None:
            self.failed = True
            raise self.failure
        if count == ng.NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
            return self.calm_down("continuation flood")
        if count == ng.NGHTTP2_ERR_FLOODED:
            return self.calm_down("control frame flood")
        if count < 0:
            self.failed = True
            self.check(count)
        return 0

    cdef Py_ssize_t take(self, const uint8_t** data) except -1:
        """The next bytes for the peer, valid until the next call; 0 when there is nothing to send now."""
        cdef ssize_t count
        if self.failed:
            return 0
        count = ng.nghttp2_session_mem_send(self.session, data)
        if self.failure is not None:
            self.failed = True
            raise self.failure
        if count < 0:
            self.failed = True
            self.check(count)
        return count

    cdef bint is_over(self):
        """Nothing is left to say or to hear: the connection can be closed."""
        return self.failed or not (
            ng.nghttp2_session_want_read(self.session) or ng.nghttp2_session_want_write(self.session)
        )

    cdef int calm_down(self, str abuse) except -1:
        """End the connection of a peer that does too much of something (RFC 9113 section 10.5)."""
        if self.abuse is None:
            self.abuse = abuse
            self.check(ng.nghttp2_session_terminate_session(self.session, ENHANCE_YOUR_CALM))
        return 0

    cdef int oversized(self) except -1:
        """A section is far beyond its limit: decoding it cost the peer nothing and us a lot (CVE-2026-47774)."""
        cdef int _i
        for _i in range(OVERSIZED_COST):
            if not self.resets.spend(self.now_ns):
                return self.calm_down("header flood")
        return 0

    cdef int headers_on_closed(self, int32_t stream_id) except -1:
        """HEADERS on a stream that libnghttp2 no longer remembers, which it would pass over in silence; it remembers as
        many closed streams as may be open, and ends the connection for HEADERS or DATA on those.

        RFC 9113 section 5.1: an error, unless we have reset the stream and the peer could not know; section 5.1.1: a
        number that was left out cannot be used later.
        """
        cdef int i
        for first, last in self.skipped:
            if first <= stream_id <= last:
                return self.check(ng.nghttp2_session_terminate_session(self.session, PROTOCOL_ERROR))
        for i in range(RECENT):
            if self.own_resets[i] == stream_id:
                if not self.control_frames.spend(self.now_ns):
                    self.calm_down("control frame flood")
                return 0
        return self.check(
            ng.nghttp2_submit_rst_stream(self.session, ng.NGHTTP2_FLAG_NONE, stream_id, STREAM_CLOSED)
        )

    cdef int settings_heeded(self) except -1:
        """RFC 9113 section 6.9.2: a SETTINGS_INITIAL_WINDOW_SIZE that makes any window too large is an error of the
        connection. libnghttp2 resets the streams instead, so that more than an acknowledgement waits to be sent."""
        self.in_settings = False
        if ng.nghttp2_session_get_outbound_queue_size(self.session) > self.queued + 1:
            return self.check(ng.nghttp2_session_terminate_session(self.session, FLOW_CONTROL_ERROR))
        return 0

    cdef int section_began(self, int32_t stream_id) except -1:
        return 0

    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1:
        """One field of the section that began last; 1 resets its stream."""
        return 0

    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1:
        return 0

    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1:
        return 0

    cdef int body_ended(self, int32_t stream_id) except -1:
        return 0

    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1:
        return 0

    cdef int stream_faulted(self, int32_t stream_id, uint32_t error_code) except -1:
        return 0

    cdef int going_away(self, int32_t last_stream_id, uint32_t error_code, bytes debug) except -1:
        return 0

    cdef int pinged(self, bytes payload) except -1:
        return 0


# What libnghttp2 calls. `user_data` is the Session, which is alive while its own method runs.

cdef int on_begin_frame(ng.nghttp2_session* session, const ng.nghttp2_frame_hd* hd, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef int32_t stream_id = hd.stream_id
    try:
        if hd.type == ng.NGHTTP2_SETTINGS:
            self.in_settings = True
            self.queued = ng.nghttp2_session_get_outbound_queue_size(session)
        if not self.is_server or not stream_id & 1 or hd.type != ng.NGHTTP2_HEADERS:
            return 0
        if stream_id > self.highest_stream:
            if stream_id > self.highest_stream + 2 and len(self.skipped) < MAX_SKIPPED:
                self.skipped.append((self.highest_stream + 1, stream_id - 1))
            self.highest_stream = stream_id
        elif ng.nghttp2_session_find_stream(session, stream_id) == NULL:
            self.headers_on_closed(stream_id)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_begin_headers(ng.nghttp2_session* _, const ng.nghttp2_frame* frame, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    try:
        self.section_began(frame.hd.stream_id)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_header(ng.nghttp2_session* _, const ng.nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                   const uint8_t* value, size_t value_size, uint8_t flags, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    try:
        if self.field(name, name_size, value, value_size, flags & ng.NGHTTP2_NV_FLAG_NO_INDEX):
            return ng.NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE  # the stream is reset; the connection lives on
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_frame(ng.nghttp2_session* _, const ng.nghttp2_frame* frame, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    cdef bint end_stream = frame.hd.flags & ng.NGHTTP2_FLAG_END_STREAM
    cdef bint is_control = False
    try:
        if frame.hd.type == ng.NGHTTP2_HEADERS:
            self.section_ended(frame.hd.stream_id, end_stream)
        elif frame.hd.type == ng.NGHTTP2_DATA:
            if end_stream:
                self.body_ended(frame.hd.stream_id)
            elif frame.hd.length == frame.data.padlen:
                is_control = True
        elif frame.hd.type == ng.NGHTTP2_PING:
            if frame.hd.flags & ng.NGHTTP2_FLAG_ACK:
                self.pinged(PyBytes_FromStringAndSize(<const char*>frame.ping.opaque_data, 8))
            else:
                is_control = True
        elif frame.hd.type == ng.NGHTTP2_RST_STREAM:
            if not self.resets.spend(self.now_ns):
                self.calm_down("reset flood")
        elif frame.hd.type == ng.NGHTTP2_GOAWAY:
            self.going_away(
                frame.goaway.last_stream_id, frame.goaway.error_code,
                PyBytes_FromStringAndSize(<const char*>frame.goaway.opaque_data, frame.goaway.opaque_data_len),
            )
        elif frame.hd.type == ng.NGHTTP2_SETTINGS:
            self.settings_heeded()
            is_control = not frame.hd.flags & ng.NGHTTP2_FLAG_ACK
        elif frame.hd.type == ng.NGHTTP2_PRIORITY:
            is_control = True
        if is_control and not self.control_frames.spend(self.now_ns):
            self.calm_down("control frame flood")
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_frame_sent(ng.nghttp2_session* _, const ng.nghttp2_frame* frame, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    try:
        if frame.hd.type == ng.NGHTTP2_GOAWAY:
            if frame.goaway.error_code != NO_ERROR and self.abuse is None:
                self.abuse = "protocol error"
            return 0
        if frame.hd.type == ng.NGHTTP2_RST_STREAM:
            self.own_resets[self.next_own_reset] = frame.hd.stream_id
            self.next_own_reset = (self.next_own_reset + 1) % RECENT
        # Resets that say the peer was wrong; those that pass on what happened on the other side are not its doing.
        if frame.hd.type == ng.NGHTTP2_RST_STREAM and frame.rst_stream.error_code != NO_ERROR and \
                frame.rst_stream.error_code < REFUSED_STREAM and frame.rst_stream.error_code != INTERNAL_ERROR:
            self.stream_faulted(frame.hd.stream_id, frame.rst_stream.error_code)
            if not self.resets.spend(self.now_ns):
                self.calm_down("reset flood")
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_data(ng.nghttp2_session* _, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t size,
                 void* user_data) noexcept:
    cdef Session self = <Session>user_data
    try:
        self.data(stream_id, <const char*>data, size)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef int on_stream_close(ng.nghttp2_session* _, int32_t stream_id, uint32_t error_code, void* user_data) noexcept:
    cdef Session self = <Session>user_data
    try:
        self.stream_closed(stream_id, error_code)
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
    return 0


cdef ng.nghttp2_session_callbacks* CALLBACKS = NULL
if ng.nghttp2_session_callbacks_new(&CALLBACKS) != 0:
    raise MemoryError
ng.nghttp2_session_callbacks_set_on_begin_frame_callback(CALLBACKS, on_begin_frame)
ng.nghttp2_session_callbacks_set_on_begin_headers_callback(CALLBACKS, on_begin_headers)
ng.nghttp2_session_callbacks_set_on_header_callback(CALLBACKS, on_header)
ng.nghttp2_session_callbacks_set_on_frame_recv_callback(CALLBACKS, on_frame)
ng.nghttp2_session_callbacks_set_on_frame_send_callback(CALLBACKS, on_frame_sent)
ng.nghttp2_session_callbacks_set_on_data_chunk_recv_callback(CALLBACKS, on_data)
ng.nghttp2_session_callbacks_set_on_stream_close_callback(CALLBACKS, on_stream_close)
