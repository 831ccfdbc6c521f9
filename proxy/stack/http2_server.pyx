"""An accepted connection that speaks HTTP/2: each stream is routed and balanced on its own."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, strlen

from proxy.io.reactor cimport Timer
from proxy.io.transport cimport Transport
from proxy.stack.buffer cimport queue_waiting
from proxy.stack.exchange cimport MAX_REPLAY
from proxy.stack.http2_connection cimport CONNECTION_WINDOW, ConnectionProtocol
from proxy.stack.http2_exchange cimport HTTP2Exchange, ServerSide
from proxy.stack.routing cimport ConnectionSet, Refusal, Router
from proxy.telemetry cimport classify
from proxy.wire cimport fields, http1, http2
from proxy.wire cimport nghttp2 as ng
from proxy.wire.field_block cimport FieldBlock

cdef enum:
    MAX_STREAMS = 250              # open at a time on one connection
    MAX_HEADS = 4194304            # bytes of heads without a response: HPACK makes 64 KiB of a few, for each stream

# Between the two GOAWAYs of a graceful end (RFC 9113 section 6.8): a client's streams that crossed the first one are
# still served.
cdef int64_t DRAIN_NS = 1_000_000_000

# What a stream is reset for by a client's fault, as metric and log name it.
FAULTS = {http2.FLOW_CONTROL_ERROR: "flow control error", http2.STREAM_CLOSED: "stream closed"}


cdef class DrainTimer(Timer):
    cdef void expired(self):
        cdef HTTP2Server server = self.server
        server.drained()


cdef class HTTP2Server(ServerSide):
    """Made per connection by inbound and outbound, with the Router of that connection."""

    def __init__(self, Router router not None, ConnectionSet connections not None, on_end=None):
        self.router = router
        self.connections = connections
        self.on_end = on_end
        self.to_stop = []
        self.stall_ns = router.stall_ns
        if 0 < self.stall_ns < self.check_ns:
            self.check_ns = self.stall_ns
        self.open(True, MAX_STREAMS, CONNECTION_WINDOW)

    cdef void start(self, Transport transport):
        """Take over `transport`, whose handshake, if any, is done."""
        cdef ConnectionProtocol protocol = ConnectionProtocol()
        protocol.connection = self
        self.adopt(transport)
        transport.protocol = protocol
        self.connections.add(self)
        self.touch()
        if self.connections.is_draining or transport.is_outlived:
            self.drain()

    # Requests

    cdef int section_began(self, int32_t stream_id) except -1:
        cdef HTTP2Exchange exchange = self.streams.get(stream_id)
        self.in_trailers = exchange is not None
        self.has_two_hosts = False
        if exchange is None:
            exchange = HTTP2Exchange()
            exchange.renew()
            exchange.request_began(self.reactor.now_ns)
            exchange.server = self
            exchange.server_id = stream_id
            exchange.server_open = True
            exchange.dispatcher = self.router.dispatcher
            self.streams[stream_id] = exchange
            self.stream_opened()
        else:
            exchange.trailers = FieldBlock()
        self.current = exchange
        return 0

    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1:
        cdef FieldBlock block = self.current.trailers if self.in_trailers else self.current.head
        cdef fields.FieldKind kind
        cdef const char* authority
        cdef int size = 0
        if name_size > 4 and name[0] == 108 and name[1] == 53:  # l5d-
            kind = fields.classify(<const char*>name, <int>name_size)
            if kind == fields.FIELD_L5D_REQUIRE_ID and not self.in_trailers:
                self.section.clear()
                self.section.add(<const char*>name, name_size, <const char*>value, value_size, sensitive)
                self.current.require_id_size = <int>value_size
            if kind == fields.FIELD_L5D_CLIENT_ID and not self.in_trailers and not self.router.strips_client_id:
                kind = fields.FIELD_OTHER
            if kind != fields.FIELD_OTHER:
                return 0
        elif name_size == 4 and memcmp(name, b"host", 4) == 0 and not self.in_trailers:
            authority = block.find(b":authority", 10, &size)
            if authority != NULL:
                # RFC 9113 section 8.3.1: Host says the same as :authority or the request is malformed.
                if <size_t>size != value_size or not fields.same_name(authority, <const char*>value, size):
                    self.has_two_hosts = True
                return 0
        block.add(<const char*>name, name_size, <const char*>value, value_size, sensitive)
        if block.is_absurd:
            self.oversized()
            return 1
        return 0

    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1:
        cdef HTTP2Exchange exchange = self.current
        self.current = None
        if self.in_trailers:
            if exchange.trailers.is_too_large:
                if not self.resets.spend(self.now_ns):
                    self.calm_down("header flood")
                exchange.cancel()
                self.reset_stream(stream_id, http2.CANCEL)
                return 0
            return self.body_ended(stream_id)
        return self.request_head(exchange, end_stream)

    cdef int request_head(self, HTTP2Exchange exchange, bint end_stream) except -1:
        cdef FieldBlock head = exchange.head
        cdef Refusal refusal
        cdef const char* text
        cdef int size = 0
        exchange.request_complete = end_stream
        if end_stream:
            exchange.request_ended(self.reactor.now_ns)
        text = head.find(b":method", 7, &size)
        exchange.method = http1.METHOD_OTHER
        if text != NULL:
            if size == 3 and memcmp(text, b"GET", 3) == 0:
                exchange.method = http1.METHOD_GET
            elif size == 4 and memcmp(text, b"HEAD", 4) == 0:
                exchange.method = http1.METHOD_HEAD
            elif size == 7 and memcmp(text, b"OPTIONS", 7) == 0:
                exchange.method = http1.METHOD_OPTIONS
            exchange.is_idempotent = exchange.method != http1.METHOD_OTHER or (
                (size == 3 and memcmp(text, b"PUT", 3) == 0) or (size == 6 and memcmp(text, b"DELETE", 6) == 0)
            )
        text = head.find(b"content-type", 12, &size)
        if text != NULL and classify.is_grpc(text, size):
            exchange.grpc_status = classify.GRPC_UNSAID
            # gRPC-Web has its status in the body: it is told in HTTP's terms.
            exchange.is_grpc = size == 16 or text[16] != 45
        if head.is_too_large:
            self.refuse_stream(exchange, 431, "request header too large")
            return 0
        exchange.head_held = head.capacity
        self.heads += head.capacity
        if self.heads > MAX_HEADS:
            self.refuse_stream(exchange, 431, "request headers too large together")
            return 0
        if self.has_two_hosts:
            self.refuse_stream(exchange, 400, "host is not the authority")
            return 0
        exchange.path = head.find(b":path", 5, &exchange.path_size)
        if exchange.require_id_size > 0:
            exchange.require_id = self.section.find(b"l5d-require-id", 14, &exchange.require_id_size)
        if self.router.access_log is not None:
            exchange.line = self.router.access_log.http2_line(
                self.router.client, self.router.identity, head
            )
        refusal = self.router.route(exchange)
        if refusal is not None:
            self.refuse_stream(exchange, refusal.status, refusal.error)
            return 0
        if len(self.router.client_id):
            head.add(b"l5d-client-id", 13, <const char*>self.router.client_id, len(self.router.client_id), False)
        exchange.dispatcher.dispatch(exchange)
        return 0

    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1:
        cdef HTTP2Exchange exchange = self.streams.get(stream_id)
        self.hold(size)
        if exchange is None or (not exchange.is_active and not exchange.client_open):
            self.handed_on(stream_id, size)
            return 0
        exchange.request_frame(size)
        if exchange.care is not None:
            exchange.care.deadlines.moved(self.reactor.now_ns)
        exchange.request_put(data, size, self.reactor.now_ns)
        if exchange.request_body.keeps and exchange.request_body.size > MAX_REPLAY and \
                exchange.request_body.start >= exchange.request_taken:
            exchange.request_body.keeps = False
            exchange.is_replayable = False
        exchange.request_ready()
        return 0

    cdef int body_ended(self, int32_t stream_id) except -1:
        cdef HTTP2Exchange exchange = self.streams.get(stream_id)
        if exchange is not None:
            exchange.request_complete = True
            exchange.request_ended(self.reactor.now_ns)
            exchange.request_ready()
        return 0

    # Responses

    cdef void inform(self, HTTP2Exchange exchange, FieldBlock block):
        cdef ng.nghttp2_nv nva[http2.MAX_FIELDS + 1]
        if self.transport is not None and exchange.server_open:
            ng.nghttp2_submit_headers(
                self.session, ng.NGHTTP2_FLAG_NONE, exchange.server_id, NULL, nva, block.fill(nva), NULL
            )
            self.touch()

    cdef void respond(self, HTTP2Exchange exchange, FieldBlock block, bint end_stream):
        cdef ng.nghttp2_nv nva[http2.MAX_FIELDS + 1]
        cdef ng.nghttp2_data_provider provider
        if self.transport is None or not exchange.server_open:
            return
        self.let_go_of_head(exchange)
        if exchange.line is not None:
            exchange.log_http2_answer(block)
        provider.source.ptr = <void*>exchange
        provider.read_callback = read_response
        exchange.response_sent = end_stream
        ng.nghttp2_submit_response(
            self.session, exchange.server_id, nva, block.fill(nva), NULL if end_stream else &provider
        )
        self.touch()

    cdef void let_go_of_head(self, HTTP2Exchange exchange):
        self.heads -= exchange.head_held
        exchange.head_held = 0
        exchange.head.clear()

    cdef void response_ended(self, HTTP2Exchange exchange):
        if exchange.response_waits:
            exchange.response_waits = False
            self.resume(exchange.server_id)

    cdef void client_closed(self, HTTP2Exchange exchange):
        """The response came whole, and the endpoint does not want the rest of the request, if there is one."""
        exchange.drop_request()
        if exchange.response_sent and not exchange.request_complete and exchange.server_open:
            self.stop_request(exchange.server_id)

    cdef void break_off(self, HTTP2Exchange exchange, uint32_t error_code):
        """The response will not come, or not whole. The client is told what the endpoint said; a gRPC client whose
        response was under way learns of a lost connection from the trailers, as in Linkerd."""
        exchange.drop_request()
        if exchange.is_grpc and exchange.response_started and error_code == http2.INTERNAL_ERROR:
            exchange.response_trailers = FieldBlock()
            exchange.response_trailers.add(b"grpc-status", 11, b"14", 2, False)
            exchange.response_trailers.add(b"grpc-message", 12, b"connection closed", 17, False)
            exchange.response_complete = True
            self.response_ended(exchange)
            return
        if exchange.server_open:
            self.reset_stream(exchange.server_id, error_code if error_code != http2.NO_ERROR else http2.INTERNAL_ERROR)

    cdef void broken_off(self, int status, str error):
        self.router.broken_off(status, error)

    cdef void refuse_stream(self, HTTP2Exchange exchange, int status, str error):
        """Answer for the application, with an empty body and, where this client may see it, the reason."""
        cdef FieldBlock block = FieldBlock()
        cdef char number[12]
        cdef bytes reason
        exchange.is_active = False
        exchange.refused(status, error, self.reactor.now_ns)
        self.router.refused(status, error)
        exchange.drop_request()
        if self.transport is None or not exchange.server_open:
            return
        reason = error.encode("ascii", "replace")
        snprintf(number, sizeof(number), b"%d", 200 if exchange.is_grpc else status)
        block.add(b":status", 7, number, strlen(number), False)
        if exchange.is_grpc:
            block.add(b"content-type", 12, b"application/grpc", 16, False)
            snprintf(number, sizeof(number), b"%d", classify.grpc_code(status))
            block.add(b"grpc-status", 11, number, strlen(number), False)
            block.add(b"grpc-message", 12, <const char*>reason, len(reason), False)
        block.add(b"content-length", 14, b"0", 1, False)
        if self.router.shows_errors:
            if exchange.is_unreached:
                reason = b"unreached: " + reason
            block.add(b"l5d-proxy-error", 15, <const char*>reason, len(reason), False)
        self.respond(exchange, block, True)
        if not exchange.request_complete:
            self.stop_request(exchange.server_id)

    cdef void stop_request(self, int32_t stream_id):
        """Once the response is out, have the client send no more of its request (RFC 9113 section 8.1). libnghttp2
        drops what is queued for a stream when its reset is submitted, so that waits."""
        self.to_stop.append(stream_id)
        self.touch()

    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1:
        cdef HTTP2Exchange exchange = self.streams.pop(stream_id, None)
        if exchange is not None:
            self.let_go_of_head(exchange)
            exchange.server_open = False
            exchange.reset_code = error_code
            if exchange.is_active:
                exchange.cancel()
            else:
                exchange.abandon()
            exchange.drop_request()
        if self.is_draining and not self.streams:
            self.touch()
        return 0

    cdef int stream_faulted(self, int32_t stream_id, uint32_t error_code) except -1:
        self.broken_off(0, FAULTS.get(error_code, "protocol error"))
        return 0

    # The end

    cpdef void drain(self):
        """Have the client open no more streams; close when those that are open have ended."""
        if self.is_draining or self.transport is None:
            return
        self.is_draining = True
        ng.nghttp2_submit_shutdown_notice(self.session)
        self.drain_timer = DrainTimer()
        self.drain_timer.server = self
        self.reactor.arm(self.drain_timer, DRAIN_NS)
        self.touch()

    cdef void drained(self):
        """The first GOAWAY has been heard by now: say which streams are served."""
        if self.transport is None:
            return
        ng.nghttp2_submit_goaway(
            self.session, ng.NGHTTP2_FLAG_NONE, ng.nghttp2_session_get_last_proc_stream_id(self.session),
            http2.NO_ERROR, NULL, 0,
        )
        self.drain_timer = None
        self.touch()

    cdef void flush(self):
        cdef list stopped
        ServerSide.flush(self)
        if self.to_stop and self.transport is not None and not self.transport.is_congested():
            stopped = self.to_stop
            self.to_stop = []
            for stream_id in stopped:
                self.reset_stream(stream_id, http2.NO_ERROR)
            ServerSide.flush(self)
        if self.is_draining and self.drain_timer is None and not self.streams:
            self.close()

    cdef void over(self, str error):
        cdef HTTP2Exchange exchange
        cdef dict left = self.streams
        cdef object on_end = self.on_end
        self.streams = {}
        if self.drain_timer is not None:
            self.reactor.disarm(self.drain_timer)
            self.drain_timer = None
        for item in left.values():
            exchange = <HTTP2Exchange>item
            exchange.server_open = False
            if exchange.is_active:
                exchange.cancel()
            else:
                exchange.abandon()
        self.router.ended(error)
        self.connections.discard(self)
        self.on_end = None
        if on_end is not None:
            on_end()

    def __repr__(self):
        return f"<HTTP2Server {self.transport!r} streams={len(self.streams)}>"


cdef ssize_t read_response(
        ng.nghttp2_session* _, int32_t stream_id, uint8_t* into, size_t size, uint32_t* flags,
        ng.nghttp2_data_source* source, void* user_data) noexcept:
    """Fill a DATA frame; libnghttp2 has already cut `size` to both windows and the frame size."""
    cdef HTTP2Server self = <HTTP2Server>user_data
    cdef HTTP2Exchange exchange = <HTTP2Exchange>source.ptr  # `streams` holds it until its stream is closed
    cdef ng.nghttp2_nv nva[http2.MAX_FIELDS + 1]
    cdef Py_ssize_t count
    try:
        count = exchange.response_take(<char*>into, size, self.reactor.now_ns)
        if count > 0 and exchange.client is not None:
            exchange.client.handed_on(exchange.client_id, count)
        if exchange.response_complete and queue_waiting(&exchange.response_body) == 0:
            flags[0] |= ng.NGHTTP2_DATA_FLAG_EOF
            exchange.response_sent = True
            if exchange.response_trailers is not None:
                flags[0] |= ng.NGHTTP2_DATA_FLAG_NO_END_STREAM
                ng.nghttp2_submit_trailer(self.session, stream_id, nva, exchange.response_trailers.fill(nva))
            if not exchange.request_complete and not exchange.client_open:
                self.stop_request(stream_id)
        elif count == 0:
            exchange.response_waits = True
            return ng.NGHTTP2_ERR_DEFERRED
        return count
    except BaseException as error:
        self.keep(error)
        return ng.NGHTTP2_ERR_CALLBACK_FAILURE
