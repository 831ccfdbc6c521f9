"""A request in HTTP/2 and its response. What waits to go from one stream to the other is here; neither side may send
more than a stream's window ahead of the other."""
from libc.stdint cimport int64_t, uint32_t

from proxy.stack.buffer cimport queue_drop, queue_put, queue_rewind, queue_take, queue_waiting
from proxy.stack.exchange cimport Exchange
from proxy.stack.http2_connection cimport PRESSED_NS, HTTP2Connection
from proxy.wire cimport nghttp2 as ng
from proxy.wire.field_block cimport FieldBlock
from proxy.wire.http2 cimport CANCEL, ENHANCE_YOUR_CALM, NO_ERROR

cdef str UPLOAD_STALLED = "upload stalled"

cdef enum:
    PROGRESS = 4096    # bytes that a reader must take to be seen as reading: one byte now and then is a way to hold on


cdef class ServerSide(HTTP2Connection):
    """The accepted side. Implemented by `http2_server`, but for what is done about readers that do not read."""

    cdef void inform(self, HTTP2Exchange exchange, FieldBlock block):
        pass

    cdef void respond(self, HTTP2Exchange exchange, FieldBlock block, bint end_stream):
        pass

    cdef void response_ended(self, HTTP2Exchange exchange):
        pass

    cdef void client_closed(self, HTTP2Exchange exchange):
        pass

    cdef void break_off(self, HTTP2Exchange exchange, uint32_t error_code):
        pass

    cdef void broken_off(self, int status, str error):
        pass

    cdef void refuse_stream(self, HTTP2Exchange exchange, int status, str error):
        pass

    # Readers that do not read, and applications that do not

    cdef bint takes_nothing(self, HTTP2Exchange exchange):
        return exchange.server_open and self.transport is not None and (
            self.transport.is_congested() or ng.nghttp2_session_get_remote_window_size(self.session) <= 0
            or ng.nghttp2_session_get_stream_remote_window_size(self.session, exchange.server_id) <= 0
        )

    cdef void give_up_reader(self, HTTP2Exchange exchange):
        """Send no more of a response; what waits is dropped now, since the reset itself may have to wait."""
        self.broken_off(exchange.status, "stalled")
        self.reset_stream(exchange.server_id, ENHANCE_YOUR_CALM)
        if exchange.is_active:
            exchange.cancel()
        else:
            exchange.abandon()

    cdef void check_alive(self):
        cdef HTTP2Exchange exchange
        if self.stall_ns > 0:
            for item in list(self.streams.values()):
                exchange = <HTTP2Exchange>item
                if exchange.is_stalled(self.reactor.now_ns, self.stall_ns):
                    self.give_up_reader(exchange)
        if self.is_pressed():
            for item in list(self.streams.values()):
                exchange = <HTTP2Exchange>item
                if exchange.upload_is_in_the_way(self.reactor.now_ns, PRESSED_NS):
                    exchange.give_up_upload(self.reactor.now_ns)
        HTTP2Connection.check_alive(self)


cdef class ClientSide(HTTP2Connection):
    """The dialled side. Implemented by `http2_client`."""

    cdef void begin(self, HTTP2Exchange exchange):
        pass

    cdef void abandon_stream(self, HTTP2Exchange exchange, uint32_t error_code):
        pass

    cdef bint takes_nothing(self, HTTP2Exchange exchange):
        return False


cdef class HTTP2Exchange(Exchange):
    """Made for each stream that a client opens."""

    def __cinit__(self):
        self.is_http2 = True
        self.head = FieldBlock()
        self.request_body.keeps = True

    def __dealloc__(self):
        queue_drop(&self.request_body)
        queue_drop(&self.response_body)

    cdef void request_ready(self):
        """More of the request has come in."""
        if self.client_open and self.request_waits:
            self.request_waits = False
            self.client.resume(self.client_id)

    cdef void rewind(self):
        self.client = None
        self.client_open = False
        self.request_waits = False
        queue_rewind(&self.request_body)

    cdef void break_off(self):
        self.server.break_off(self, CANCEL)

    cdef void refuse(self, int status, str error):
        self.server.refuse_stream(self, status, error)

    cdef void abandon(self):
        cdef ClientSide client = self.client
        if self.client_open:
            self.client_open = False
            client.abandon_stream(self, self.reset_code if self.reset_code != NO_ERROR else CANCEL)
        self.drop_response()

    cdef int request_put(self, const char* data, Py_ssize_t size, int64_t now_ns) except -1:
        """A piece of the request's body came in."""
        if queue_waiting(&self.request_body) == 0:
            self.request_moved_ns = now_ns
            self.request_moved = 0
        return queue_put(&self.request_body, data, size)

    cdef Py_ssize_t request_take(self, char* into, Py_ssize_t size, int64_t now_ns):
        """Move up to `size` bytes of it on to its application."""
        cdef Py_ssize_t count = queue_take(&self.request_body, into, size)
        self.request_moved += count
        if self.request_moved >= PROGRESS:
            self.request_moved_ns = now_ns
            self.request_moved = 0
        return count

    cdef bint upload_is_in_the_way(self, int64_t now_ns, int64_t bound_ns):
        """Whether something of the request waits, and its application has taken nearly nothing for so long. A request
        that waits for an endpoint has limits of its own."""
        return self.client_open and queue_waiting(&self.request_body) > 0 and \
            now_ns - self.request_moved_ns >= bound_ns and self.client.takes_nothing(self)

    cdef void give_up_upload(self, int64_t now_ns):
        """Take no more of the request: its client is answered, or sees its response end."""
        if self.response_complete:
            self.client_open = False
            self.client.abandon_stream(self, CANCEL)
            self.server.client_closed(self)
            return
        self.abandon()
        self.finished(UPLOAD_STALLED, now_ns)
        if self.response_started:
            self.is_active = False
            self.server.broken_off(self.status, UPLOAD_STALLED)
            self.server.break_off(self, CANCEL)
        else:
            self.rewind()
            self.server.refuse_stream(self, 504, UPLOAD_STALLED)

    cdef int response_put(self, const char* data, Py_ssize_t size, int64_t now_ns) except -1:
        """A piece of the response's body came in."""
        if queue_waiting(&self.response_body) == 0:
            self.moved_ns = now_ns
            self.moved = 0
        return queue_put(&self.response_body, data, size)

    cdef Py_ssize_t response_take(self, char* into, Py_ssize_t size, int64_t now_ns):
        """Move up to `size` bytes of it on to its reader."""
        cdef Py_ssize_t count = queue_take(&self.response_body, into, size)
        self.moved += count
        if self.moved >= PROGRESS:
            self.moved_ns = now_ns
            self.moved = 0
        return count

    cdef bint is_stalled(self, int64_t now_ns, int64_t bound_ns):
        """Whether something of the response waits, and its reader has taken nearly nothing for so long."""
        return queue_waiting(&self.response_body) > 0 and now_ns - self.moved_ns >= bound_ns

    cdef bint is_in_the_way(self, int64_t now_ns, int64_t bound_ns):
        """Whether the response has not moved for so long because its reader takes nothing, though nothing may wait yet:
        it would be held as soon as it came."""
        return self.response_started and now_ns - self.moved_ns >= bound_ns and (
            queue_waiting(&self.response_body) > 0
            or (not self.response_complete and self.server.takes_nothing(self))
        )

    cdef void drop_request(self):
        """What is left of the request has nowhere to go."""
        cdef Py_ssize_t waiting = self.request_body.size
        waiting -= max(self.request_body.start, self.request_taken) if self.request_body.keeps else \
            self.request_body.start
        queue_drop(&self.request_body)
        if waiting > 0:
            self.server.handed_on(self.server_id, waiting)

    cdef void drop_response(self):
        """What is left of the response has nowhere to go."""
        cdef Py_ssize_t waiting = queue_waiting(&self.response_body)
        queue_drop(&self.response_body)
        if waiting > 0 and self.client is not None:
            self.client.let_go(waiting)
