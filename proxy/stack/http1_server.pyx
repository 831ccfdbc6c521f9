"""An accepted connection that speaks HTTP/1: reads requests, has them routed, writes responses in order.

One exchange at a time: a pipelined request waits in `backlog` until the response before it is whole (RFC 9112 section
9.3.2). Framing is always written anew from what was parsed, never forwarded as found.

A connection that is closed cleanly has answered everything it passed on: peers rely on that for safe retries (see
http1_client).
"""
from proxy.io.reactor cimport monotonic_ns
from proxy.io.relay cimport join
from proxy.io.transport cimport Transport
from proxy.stack cimport http1_heads as heads
from proxy.stack.buffer cimport Buffer
from proxy.stack.exchange cimport MAX_REPLAY
from proxy.stack.http1_exchange cimport Downstream, HTTP1Exchange, Upstream
from proxy.stack.patience cimport Patience
from proxy.stack.routing cimport ConnectionSet, Refusal, Router
from proxy.wire cimport fields, http1
from proxy.wire.http1 cimport MessageReader

from proxy.io.listen import PEER_IS_GONE

cdef enum:
    MAX_BACKLOG = 65536      # bytes of pipelined requests held while one is answered
    FLUSH_AT = 16384         # a response is gathered up to one TLS record before it is written

REASONS = {
    400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 408: b"Request Timeout", 417: b"Expectation Failed",
    429: b"Too Many Requests", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported", 508: b"Loop Detected",
}


# Who is told of an exchange whose client has left. The server itself would make a circle that keeps both.
cdef Downstream NOBODY = Downstream()


cdef class HTTP1Server(Downstream):
    """Made per connection by inbound and outbound, with the Router of that connection."""

    def __init__(self, Router router not None, ConnectionSet connections not None, on_end=None):
        self.on_end = on_end
        self.router = router
        self.connections = connections
        self.reader = MessageReader(True)
        self.exchange = HTTP1Exchange()
        self.exchange.dispatcher = router.dispatcher
        self.out = Buffer()
        self.backlog = Buffer()

    cdef void start(self, Transport transport):
        """Take over `transport`, whose handshake, if any, is done."""
        self.transport = transport
        transport.protocol = self
        self.connections.add(self)
        if self.connections.is_draining or transport.is_outlived:
            self.drain()

    # Requests

    cdef void data_received(self, const char* data, Py_ssize_t size):
        if self.exchange.is_active and self.exchange.request_complete or self.backlog.size > 0:
            self.backlog.put(data, size)
            if self.backlog.size > MAX_BACKLOG:
                self.transport.pause_reading()
            return
        self.process(data, size)

    cdef void process(self, const char* data, Py_ssize_t size):
        cdef const char* cursor = data
        cdef const char* end = data + size
        cdef const char* piece
        cdef Py_ssize_t piece_size
        cdef http1.Event event
        cdef HTTP1Exchange exchange = self.exchange
        cdef Upstream upstream  # held while it is called: a write that fails drops every other reference to it
        self.is_processing = True
        while self.transport is not None and not self.must_close:
            event = self.reader.next_event(&cursor, end, &piece, &piece_size)
            if event == http1.EVENT_HEAD:
                self.begin_request()
            elif event == http1.EVENT_DATA:
                self.awaits_continue = False
                exchange.request_frame(piece_size)
                if exchange.care is not None:
                    exchange.care.deadlines.moved(self.transport.reactor.now_ns)
                if exchange.is_active:
                    if self.request_chunked:
                        exchange.request.put_number(piece_size, 16)
                        exchange.request.put(b"\r\n", 2)
                        exchange.request.put(piece, piece_size)
                        exchange.request.put(b"\r\n", 2)
                    else:
                        exchange.request.put(piece, piece_size)
                    if exchange.upstream is not None:
                        if exchange.request.size - exchange.sent_size > FLUSH_AT:
                            upstream = exchange.upstream
                            upstream.request_push()
                    elif exchange.request.size > MAX_REPLAY:
                        exchange.is_replayable = False
                        self.transport.pause_reading()
            elif event == http1.EVENT_TRAILERS:
                if exchange.is_active:
                    exchange.request.put(b"0\r\n", 3)
                    heads.write_fields(exchange.request, False, False, True)
                    exchange.request.put(b"\r\n", 2)
                    self.request_ended = True
            elif event == http1.EVENT_END:
                exchange.request_ended(self.transport.reactor.now_ns)
                if exchange.is_active:
                    if self.request_chunked and not self.request_ended:
                        exchange.request.put(b"0\r\n\r\n", 5)
                    exchange.request_complete = True
                    if exchange.upstream is not None:
                        upstream = exchange.upstream
                        upstream.request_push()
                    elif not exchange.waiting:
                        exchange.dispatcher.dispatch(exchange)
                    if exchange.is_active:
                        if cursor < end:
                            self.backlog.put(cursor, end - cursor)
                        break
                else:
                    exchange.request_complete = True
                if self.response_complete:
                    self.next_request()
            elif event == http1.EVENT_ERROR:
                self.refuse_unread(self.reader.error_status, self.reader.error)
                break
            else:
                break
        if self.transport is not None and exchange.is_active and not exchange.request_complete and self.request_begun:
            if exchange.upstream is not None:
                upstream = exchange.upstream
                upstream.request_push()
            elif not exchange.waiting:
                exchange.dispatcher.dispatch(exchange)
        self.is_processing = False
        if self.transport is not None:
            self.wait_for_more()

    cdef void wait_for_more(self):
        """All that came is read: what it ended in the middle of has a time limit."""
        cdef bint in_head = self.reader.is_in_head()
        if in_head or self.request_begun and not self.exchange.request_complete:
            if self.patience is None:
                self.patience = Patience()
                self.patience.downstream = self
                self.patience.reactor = self.transport.reactor
                self.patience.limits = self.connections
            self.patience.wait(in_head)
        elif self.patience is not None:
            self.patience.stop()

    cdef bint is_late(self, bint in_head):
        if in_head:
            self.refuse_unread(408, "request head timeout")
        elif self.exchange.response_started or self.awaits_continue or self.transport.paused:
            return False
        else:
            self.refuse_unread(408, "request body timeout")
        return True

    cdef void begin_request(self):
        cdef HTTP1Exchange exchange = self.exchange
        cdef Refusal refusal
        cdef int i
        exchange.start(self)
        if self.patience is not None:
            self.patience.stop()
        self.awaits_continue = http1.head.expects_continue
        self.request_begun = True
        self.request_ended = False
        self.response_complete = False
        self.request_minor_version = http1.head.minor_version
        self.request_chunked = http1.head.framing == http1.FRAMING_CHUNKED
        exchange.method = http1.head.method
        exchange.is_idempotent = heads.idempotent()
        exchange.wants_upgrade = http1.head.upgrade
        exchange.keeps_alive = http1.head.minor_version == 1
        if http1.head.wants_close:
            self.is_draining = True
        exchange.path = http1.head.target
        exchange.path_size = http1.head.target_size
        for i in range(http1.head.field_count):
            if http1.head.fields[i].kind == fields.FIELD_L5D_REQUIRE_ID:
                exchange.require_id = http1.head.fields[i].value
                exchange.require_id_size = http1.head.fields[i].value_size
                break
        if self.router.access_log is not None:
            exchange.line = self.router.access_log.http1_line(self.router.client, self.router.identity)
        refusal = self.router.route(exchange)
        if refusal is not None:
            self.refuse(refusal.status, refusal.error, refusal.close)
            return
        if http1.head.method == http1.METHOD_CONNECT and (
            http1.head.minor_version == 0 or not heads.is_authority(http1.head.target, http1.head.target_size)
        ):
            self.refuse(400, "malformed CONNECT", True)
            return
        heads.write_request_head(exchange.request, self.router.client_id, self.router.strips_client_id)

    cdef void refuse_unread(self, int status, str error):
        """The request will not come whole: it is malformed, or too slow."""
        cdef HTTP1Exchange exchange = self.exchange
        if exchange.is_active and self.request_begun and not exchange.response_started:
            exchange.cancel()
            exchange.is_active = True
        if self.request_begun and exchange.response_started:
            exchange.cancel()
            self.abort_all()
            return
        if not self.request_begun:
            exchange.start(self)
        self.refuse(status, error, True)

    cdef void request_writable(self):
        if self.transport is not None and self.backlog.size <= MAX_BACKLOG:
            self.transport.resume_reading()

    # Responses

    cdef void response_head(self, Upstream upstream):
        """Forward the head in http1.head; a final one decides how the body is framed for this client."""
        cdef Buffer out = self.out
        cdef int status = http1.head.status
        cdef bint has_body
        if self.transport is None:
            return
        out.put(b"HTTP/1.1 " if http1.head.minor_version else b"HTTP/1.0 ", 9)
        out.put_number(status, 10)
        out.put(b" ", 1)
        out.put(http1.head.reason, http1.head.reason_size)
        out.put(b"\r\n", 2)
        heads.write_fields(out, False, True, False)
        self.response_chunked = False
        if status < 200:
            self.awaits_continue = False
            if status == 101:
                out.put(b"connection: upgrade\r\n", 21)
                heads.write_upgrade(out)
            out.put(b"\r\n", 2)
            self.response_flush()
            return
        if self.exchange.line is not None:
            self.exchange.log_http1_answer()
        has_body = not (
            self.exchange.method == http1.METHOD_HEAD or status == 204 or status == 304
            or (self.exchange.method == http1.METHOD_CONNECT and status < 300)
        )
        if http1.head.wants_close:
            self.exchange.keeps_alive = False
        if not has_body:
            if http1.head.content_length >= 0 and status != 204 and self.exchange.method != http1.METHOD_CONNECT:
                out.put(b"content-length: ", 16)
                out.put_number(http1.head.content_length, 10)
                out.put(b"\r\n", 2)
            elif http1.head.framing == http1.FRAMING_CHUNKED and self.exchange.method == http1.METHOD_HEAD:
                out.put(b"transfer-encoding: chunked\r\n", 28)
        elif http1.head.framing == http1.FRAMING_LENGTH:
            out.put(b"content-length: ", 16)
            out.put_number(http1.head.content_length, 10)
            out.put(b"\r\n", 2)
        elif self.request_minor_version == 1:
            # Also when the upstream ends its body by closing: chunks let this client tell a whole response from a
            # broken one.
            self.response_chunked = True
            out.put(b"transfer-encoding: chunked\r\n", 28)
        else:
            self.is_draining = True
        if self.is_draining or not self.exchange.request_complete:
            self.must_close_after = True
            if not (self.exchange.method == http1.METHOD_CONNECT and status < 300):
                out.put(b"connection: close\r\n", 19)
        elif self.request_minor_version == 0:
            out.put(b"connection: keep-alive\r\n", 24)
        out.put(b"\r\n", 2)

    cdef void response_data(self, const char* data, Py_ssize_t size):
        cdef Buffer out = self.out
        if self.transport is None:
            return
        if self.response_chunked:
            out.put_number(size, 16)
            out.put(b"\r\n", 2)
        if size >= FLUSH_AT:
            self.transport.write(out.data, out.size)
            out.clear()
            if self.transport is not None:
                self.transport.write(data, size)
        else:
            out.put(data, size)
        if self.response_chunked:
            out.put(b"\r\n", 2)
        if out.size >= FLUSH_AT:
            self.response_flush()

    cdef void response_trailers(self):
        if self.response_chunked:
            self.out.put(b"0\r\n", 3)
            heads.write_fields(self.out, False, True, True)
            self.out.put(b"\r\n", 2)
            self.response_chunked = False

    cdef void response_flush(self):
        if self.transport is None:
            return
        if self.out.size > 0:
            self.transport.write(self.out.data, self.out.size)
            self.out.clear()
        if self.transport is not None and self.transport.is_congested() and self.exchange.upstream is not None:
            self.exchange.upstream.transport.pause_reading()

    cdef void response_end(self, Upstream upstream):
        if self.transport is None:
            return
        if self.response_chunked:
            self.out.put(b"0\r\n\r\n", 5)
        self.response_flush()
        self.response_complete = True
        self.exchange.is_active = False
        if self.must_close_after or not self.exchange.request_complete:
            self.end(has_said_all=self.exchange.request_complete and self.backlog.size == 0)
        elif not self.is_processing:
            self.next_request()
            self.process_backlog()

    cdef void response_broken(self):
        """The body was cut short: the client must not take it for whole."""
        self.abort_all()

    cdef void abort_all(self):
        self.exchange.is_active = False
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
            self.leave()

    cdef void refuse(self, int status, str error, bint close):
        """Answer for the application, with an empty body and, where this client may see it, the reason."""
        cdef Buffer out = self.out
        self.exchange.is_active = False
        self.exchange.refused(status, error, monotonic_ns())
        self.router.refused(status, error)
        if self.transport is None:
            return
        if status >= 500 or self.is_draining or not self.reader.body_is_read():
            close = True
        out.put(b"HTTP/1.1 ", 9)
        out.put_number(status, 10)
        out.put(b" ", 1)
        out.put_bytes(REASONS.get(status, b"Error"))
        out.put(b"\r\ncontent-length: 0\r\n", 21)
        if self.router.shows_errors:
            out.put(b"l5d-proxy-error: ", 17)
            if self.exchange.is_unreached:
                out.put(b"unreached: ", 11)
            out.put_bytes(error.encode("ascii", "replace"))
            out.put(b"\r\n", 2)
        if close:
            if self.router.shows_errors:
                out.put(b"l5d-proxy-connection: close\r\n", 29)
            out.put(b"connection: close\r\n", 19)
        out.put(b"\r\n", 2)
        self.response_flush()
        self.response_complete = True
        if close:
            self.end()
        elif not self.is_processing:
            self.next_request()
            self.process_backlog()

    def respond(self, int status, list named, bytes body):
        """Answer a request of the proxy's own (admin): `named` are (name, value) pairs without content-length."""
        cdef Buffer out = self.out
        if self.transport is None or not self.exchange.is_active:
            return
        out.put_bytes(b"HTTP/1.1 %d %s\r\n" % (status, REASONS.get(status, b"OK")))
        for name, value in named:
            out.put_bytes(f"{name}: {value}\r\n".encode())
        out.put_bytes(b"content-length: %d\r\n" % len(body))
        if self.is_draining:
            out.put(b"connection: close\r\n", 19)
        out.put(b"\r\n", 2)
        if self.exchange.method != http1.METHOD_HEAD:
            out.put_bytes(body)
        self.response_flush()
        self.exchange.is_active = False
        self.response_complete = True
        if self.is_draining:
            self.end()
        elif not self.is_processing:
            self.next_request()
            self.process_backlog()

    cdef void writable(self):
        if self.exchange.upstream is not None:
            self.exchange.upstream.transport.resume_reading()

    # Between requests, and the end

    cdef void next_request(self):
        self.reader.restart()
        self.request_begun = False
        self.exchange.request.clear()
        self.exchange.request_complete = False
        self.response_complete = False
        if self.is_draining and self.backlog.size == 0:
            self.end()

    cdef void process_backlog(self):
        cdef Buffer backlog
        while self.transport is not None and self.backlog.size > 0 and not self.exchange.is_active:
            backlog = self.backlog
            self.backlog = Buffer()
            self.process(backlog.data, backlog.size)
        if self.transport is None:
            return
        if self.backlog.size <= MAX_BACKLOG:
            self.transport.resume_reading()
        if self.client_ended and self.backlog.size == 0:
            self.nothing_follows()

    cdef void upgraded(self, Transport upstream):
        cdef Transport transport = self.transport
        self.exchange.is_active = False
        if self.patience is not None:
            self.patience.stop()
        if transport is None:
            upstream.abort()
            return
        self.transport = None
        if self.backlog.size > 0:
            upstream.write(self.backlog.data, self.backlog.size)
            self.backlog.clear()
        join(transport, upstream, self.tunnel_ended)

    def tunnel_ended(self):
        self.leave()

    cdef void eof_received(self):
        """The client sends no more. What it has sent whole is still answered, a half-sent request never will be."""
        self.client_ended = True
        if self.backlog.size == 0:
            self.nothing_follows()

    cdef void nothing_follows(self):
        """The request in hand is the last, if it is whole."""
        if self.exchange.is_active and self.exchange.request_complete:
            self.is_draining = True
            self.must_close_after = True
            return
        if self.exchange.is_active:
            self.exchange.cancel()
        self.end()

    cdef void closed(self, object reason):
        self.transport = None
        self.exchange.cancel()
        if reason is not None and reason.errno in PEER_IS_GONE:
            self.router.ended("peer timeout")
        self.leave()

    cdef void crashed(self):
        self.closed(None)

    cdef void end(self, bint has_said_all=False):
        if self.transport is not None:
            self.must_close = True
            self.exchange.cancel()
            if has_said_all:
                self.transport.conclude()
            else:
                self.transport.close()
            self.transport = None
            self.leave()

    cdef void leave(self):
        self.connections.discard(self)
        if self.exchange.upstream is None:
            self.exchange.downstream = NOBODY
        if self.patience is not None:
            self.patience.stop()
            self.patience.downstream = None
            self.patience = None
        on_end = self.on_end
        self.on_end = None
        if on_end is not None:
            on_end()

    cpdef void drain(self):
        """End after the request in hand, or now."""
        self.is_draining = True
        if not self.request_begun and self.reader.is_idle() and self.backlog.size == 0:
            self.end()

    cdef void outlived(self):
        self.drain()

    def __repr__(self):
        return f"<HTTP1Server {self.transport!r} active={self.exchange.is_active}>"
