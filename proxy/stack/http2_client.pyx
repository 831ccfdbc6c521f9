"""A connection to an endpoint that speaks HTTP/2: many exchanges at a time, each on a stream of its own."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from proxy.io.transport cimport Transport
from proxy.stack.buffer cimport queue_waiting
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.http2_connection cimport CONNECTION_WINDOW, PRESSED_NS
from proxy.stack.http2_exchange cimport ClientSide, HTTP2Exchange
from proxy.stack.retry cimport ANSWERED
from proxy.telemetry cimport classify
from proxy.telemetry.streams cimport reset_reason
from proxy.wire cimport fields, http2
from proxy.wire cimport nghttp2 as ng
from proxy.wire.field_block cimport FieldBlock

from proxy.tls.contexts import ALPN_HTTP2

cdef str TULLE_HTTP2 = ALPN_HTTP2


cdef class SessionObserver:
    cdef void session_opened(self, HTTP2Client client):
        pass

    cdef void session_failed(self, HTTP2Client client, object reason):
        pass

    cdef void session_has_room(self, HTTP2Client client):
        pass

    cdef void session_gone(self, HTTP2Client client):
        pass


cdef class HTTP2Client(ClientSide):
    """Dialled because an exchange waits; takes streams until the peer goes away or the endpoint is retired."""

    def __cinit__(self):
        self.reads_always = True

    cdef void connected(self, Transport transport):
        self.adopt(transport)
        self.open(False, 0, CONNECTION_WINDOW)
        self.is_open = True
        self.peer_is_tulle = transport.alpn is not None and transport.alpn == TULLE_HTTP2
        self.touch()
        self.observer.session_opened(self)

    cdef void dial_failed(self, object reason):
        self.observer.session_failed(self, reason)

    cdef bint has_room(self):
        """Whether one more stream can be opened now."""
        if not self.is_open:
            return False
        if len(self.streams) < <Py_ssize_t>ng.nghttp2_session_get_remote_settings(
            self.session, ng.NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        ):
            return True
        self.is_full = True
        return False

    cdef void begin(self, HTTP2Exchange exchange):
        cdef ng.nghttp2_nv nva[http2.MAX_FIELDS + 1]
        cdef ng.nghttp2_data_provider provider
        cdef bint has_body = not exchange.request_complete or queue_waiting(&exchange.request_body) > 0 or \
            exchange.trailers is not None
        cdef int count = exchange.head.fill(nva)
        cdef int32_t stream_id
        exchange.sent(self.reactor.now_ns)
        provider.source.ptr = <void*>exchange
        provider.read_callback = read_request
        stream_id = ng.nghttp2_submit_request(
            self.session, NULL, nva, count, &provider if has_body else NULL, <void*>exchange
        )
        if stream_id < 0:
            # No more streams on this connection (numbers are used up, or the peer is going away).
            self.retire()
            exchange.lost("connection closed", 503, True)
            return
        exchange.client = self
        exchange.client_id = stream_id
        exchange.client_open = True
        self.streams[stream_id] = exchange
        self.stream_opened()
        self.touch()

    cdef void abandon_stream(self, HTTP2Exchange exchange, uint32_t error_code):
        self.reset_stream(exchange.client_id, error_code)

    # Hooks

    cdef HTTP2Exchange listener(self, int32_t stream_id):
        cdef HTTP2Exchange exchange = self.streams.get(stream_id)
        if exchange is None or not exchange.client_open or exchange.client is not self or \
                exchange.client_id != stream_id:
            return None
        return exchange

    cdef int section_began(self, int32_t stream_id) except -1:
        self.section.clear()
        self.current = self.listener(stream_id)
        self.marked_unreached = False
        return 0

    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1:
        cdef fields.FieldKind kind = fields.FIELD_OTHER
        if name_size > 4 and name[0] == 108 and name[1] == 53:  # l5d-
            kind = fields.classify(<const char*>name, <int>name_size)
            if kind == fields.FIELD_L5D_PROXY_ERROR and value_size >= 9 and \
                    fields.equals_ignoring_case(<const char*>value, 9, b"unreached"):
                self.marked_unreached = True
            if kind != fields.FIELD_OTHER:
                return 0
        self.section.add(<const char*>name, name_size, <const char*>value, value_size, sensitive)
        return 1 if self.section.is_absurd else 0

    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1:
        cdef HTTP2Exchange exchange = self.current
        cdef FieldBlock block
        self.current = None
        if exchange is None:
            return 0
        if self.section.is_too_large:
            self.reset_stream(stream_id, http2.CANCEL)
            self.stream_failed(exchange, "response header too large", 502, False, http2.INTERNAL_ERROR)
            return 0
        if self.section.count > 0 and self.section.text[0] == 58:  # ":status" is the only pseudo-field, and first
            return self.response_head(exchange, end_stream)
        block = self.section
        self.section = FieldBlock()
        exchange.response_trailers = block
        return self.response_ended(exchange)

    cdef int response_head(self, HTTP2Exchange exchange, bint end_stream) except -1:
        cdef int64_t now_ns = self.reactor.now_ns
        cdef int size = 0
        cdef int status = 0
        cdef int i
        cdef const char* text = self.section.find(b":status", 7, &size)
        for i in range(size):
            status = status * 10 + text[i] - 48
        if status < 200:
            exchange.server.inform(exchange, self.section)
            return 0
        if self.peer_is_tulle and self.marked_unreached and exchange.may_retry(True):
            self.reset_stream(exchange.client_id, http2.CANCEL)
            exchange.lost("unreached", status, True)
            return 0
        exchange.status = status
        if end_stream:
            note_grpc_status(exchange, self.section)
        if exchange.endpoint.penalty is not None:
            exchange.penalty_ns = exchange.endpoint.penalty.of(
                status, exchange.grpc_status, retry_after_ns(self.section)
            )
        if exchange.care is not None and exchange.goes_again(ANSWERED, status):
            self.discard(exchange, end_stream)
            return 0
        exchange.answered(status, now_ns)
        exchange.moved_ns = now_ns
        exchange.request_body.keeps = False
        exchange.server.respond(exchange, self.section, end_stream)
        if end_stream:
            return self.response_ended(exchange)
        return 0

    cdef void discard(self, HTTP2Exchange exchange, bint end_stream):
        """The answer whose head is in `section` is not for the client, whose request is sent again."""
        cdef Endpoint endpoint = exchange.endpoint
        if not end_stream or not exchange.request_complete or queue_waiting(&exchange.request_body) > 0:
            self.reset_stream(exchange.client_id, http2.CANCEL)
        exchange.finished(None, self.reactor.now_ns)
        exchange.again(endpoint)

    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1:
        cdef HTTP2Exchange exchange = self.listener(stream_id)
        self.hold(size)
        if exchange is None:
            self.handed_on(stream_id, size)
            return 0
        if not exchange.latency_taken:
            exchange.body_began(self.reactor.now_ns)
        exchange.response_frame(size)
        if exchange.care is not None:
            exchange.care.deadlines.moved(self.reactor.now_ns)
        exchange.response_put(data, size, self.reactor.now_ns)
        if exchange.response_waits:
            exchange.response_waits = False
            exchange.server.resume(exchange.server_id)
        return 0

    cdef int body_ended(self, int32_t stream_id) except -1:
        cdef HTTP2Exchange exchange = self.listener(stream_id)
        return self.response_ended(exchange) if exchange is not None else 0

    cdef int response_ended(self, HTTP2Exchange exchange) except -1:
        if exchange.response_trailers is not None:
            note_grpc_status(exchange, exchange.response_trailers)
        exchange.response_complete = True
        exchange.finished(None, self.reactor.now_ns)
        exchange.is_active = False
        exchange.server.response_ended(exchange)
        return 0

    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1:
        cdef HTTP2Exchange exchange = self.listener(stream_id)
        self.streams.pop(stream_id, None)
        if exchange is not None:
            exchange.client_open = False
            if exchange.response_complete:
                exchange.server.client_closed(exchange)
            elif error_code == http2.REFUSED_STREAM:
                self.stream_failed(exchange, "refused", 503, True, error_code)
            else:
                self.stream_failed(exchange, reset_reason(error_code), 0, False, error_code)
        if not self.is_open:
            if not self.streams:
                self.touch()
        elif self.is_full:
            self.is_full = False
            self.observer.session_has_room(self)
        return 0

    cdef int going_away(self, int32_t last_stream_id, uint32_t error_code, bytes debug) except -1:
        self.retire()
        return 0

    cdef void stream_failed(self, HTTP2Exchange exchange, str error, int status, bint unprocessed, int error_code):
        """A stream ended before its response was whole. Without a `status` the peer's reset is passed on."""
        exchange.client_open = False
        if not exchange.response_started and status != 0:
            exchange.lost(error, status, unprocessed)
            return
        exchange.finished(error, self.reactor.now_ns)
        exchange.concluded(exchange.status, error, self.reactor.now_ns)
        exchange.is_active = False
        exchange.server.break_off(exchange, error_code)

    # Who does not read

    cdef bint takes_nothing(self, HTTP2Exchange exchange):
        """Of a connection whose window is closed as a whole only the peer knows for whose sake; one of ours finds out,
        and resets those. Any other closes it for all its streams."""
        return exchange.client_open and self.transport is not None and (
            ng.nghttp2_session_get_stream_remote_window_size(self.session, exchange.client_id) <= 0
            or not self.peer_is_tulle and (
                self.transport.is_congested() or ng.nghttp2_session_get_remote_window_size(self.session) <= 0
            )
        )

    cdef void check_alive(self):
        cdef HTTP2Exchange exchange
        if self.is_pressed():
            for item in list(self.streams.values()):
                exchange = <HTTP2Exchange>item
                if exchange.client is self and exchange.is_in_the_way(self.reactor.now_ns, PRESSED_NS):
                    exchange.server.give_up_reader(exchange)
        ClientSide.check_alive(self)

    # The end

    cdef void retire(self):
        """Take no more streams; those that are open finish."""
        if self.is_open:
            self.is_open = False
            self.observer.session_gone(self)
        self.touch()

    cpdef void drain(self):
        self.retire()

    cdef void flush(self):
        ClientSide.flush(self)
        if self.transport is not None and not self.is_open and not self.streams:
            self.close()

    cdef void over(self, str error):
        cdef HTTP2Exchange exchange
        cdef dict left = self.streams
        self.retire()
        self.streams = {}
        for item in left.values():
            exchange = <HTTP2Exchange>item
            if exchange.client_open and exchange.client is self:
                if exchange.response_complete:
                    exchange.client_open = False
                    exchange.server.client_closed(exchange)
                else:
                    self.stream_failed(exchange, error, 502, False, http2.INTERNAL_ERROR)

    def __repr__(self):
        return f"<HTTP2Client {self.transport!r} streams={len(self.streams)}>"


cdef void note_grpc_status(HTTP2Exchange exchange, FieldBlock block):
    cdef int size = 0
    cdef const char* text
    if exchange.grpc_status != classify.NOT_GRPC:
        text = block.find(b"grpc-status", 11, &size)
        if text != NULL:
            exchange.grpc_status = classify.parse_grpc_status(text, size)


cdef int64_t retry_after_ns(FieldBlock block):
    """What an answer asks for: Retry-After in seconds (a date counts as nothing said) or gRPC's pushback."""
    cdef int size = 0
    cdef const char* text = block.find(b"retry-after", 11, &size)
    if text != NULL:
        return <int64_t>fields.decimal(text, size) * 1_000_000_000
    text = block.find(b"grpc-retry-pushback-ms", 22, &size)
    return <int64_t>fields.decimal(text, size) * 1_000_000 if text != NULL else 0


cdef ssize_t read_request(
        ng.nghttp2_session* _, int32_t stream_id, uint8_t* into, size_t size, uint32_t* flags,
        ng.nghttp2_data_source* source, void* user_data) noexcept:
    """Fill a DATA frame; libnghttp2 has already cut `size` to both windows and the frame size."""
    cdef HTTP2Client self = <HTTP2Client>user_data
    cdef HTTP2Exchange exchange = <HTTP2Exchange>source.ptr  # `streams` holds it until its stream is closed
    cdef ng.nghttp2_nv nva[http2.MAX_FIELDS + 1]
    cdef Py_ssize_t count, fresh
    try:
        if exchange.client is not self or exchange.client_id != stream_id or not exchange.client_open:
            exchange.request_waits = True
            return ng.NGHTTP2_ERR_DEFERRED  # abandoned: its reset is on the way
        count = fresh = exchange.request_take(<char*>into, size, self.reactor.now_ns)
        if count > 0:
            if exchange.request_body.keeps:
                fresh = exchange.request_body.start - exchange.request_taken
                exchange.request_taken = max(exchange.request_taken, exchange.request_body.start)
            if fresh > 0:
                exchange.server.handed_on(exchange.server_id, fresh)
        if exchange.request_complete and queue_waiting(&exchange.request_body) == 0:
            flags[0] |= ng.NGHTTP2_DATA_FLAG_EOF
            if exchange.trailers is not None:
                flags[0] |= ng.NGHTTP2_DATA_FLAG_NO_END_STREAM
                ng.nghttp2_submit_trailer(self.session, stream_id, nva, exchange.trailers.fill(nva))
        elif count == 0:
            exchange.request_waits = True
            return ng.NGHTTP2_ERR_DEFERRED
        return count
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
