# What libnghttp2 calls while a session sends or receives; included by http2.pyx, whose classes these functions fill.
#
# libnghttp2 copies the names and values of a request, so `fields` may be freed; it keeps `user_data` and
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
