"""A connection to an endpoint that speaks HTTP/1: one exchange at a time, then back to the pool."""
from libc.stdint cimport int64_t

from proxy.io.transport cimport Transport
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport MAX_REPLAY
from proxy.stack.http1_exchange cimport Downstream, HTTP1Exchange, Upstream
from proxy.stack.retry cimport ANSWERED
from proxy.telemetry.classify cimport NOT_GRPC
from proxy.tls.contexts import ALPN_HTTP1
from proxy.wire cimport fields, http1
from proxy.wire.http1 cimport MessageReader

cdef str TULLE_HTTP1 = ALPN_HTTP1


cdef class ConnectionObserver:
    cdef void connection_opened(self, HTTP1Client client):
        pass

    cdef void connection_failed(self, HTTP1Client client, object reason):
        pass

    cdef void connection_idle(self, HTTP1Client client):
        pass

    cdef void connection_gone(self, HTTP1Client client):
        pass


cdef class HTTP1Client(Upstream):
    """Dialled because an exchange waits, given to whichever is first when it stands, kept for others.

    Between Tulle proxies (ALPN tulle/http1) a clean close without an answer means that the request was not passed on;
    that is the contract of `http1_server`, and what makes a retry safe when a peer drains.
    """

    def __cinit__(self):
        self.reader = MessageReader(False)

    cdef void connected(self, Transport transport):
        self.transport = transport
        self.is_open = True
        self.peer_is_tulle = transport.alpn is not None and transport.alpn == TULLE_HTTP1
        self.observer.connection_opened(self)
        self.observer.connection_idle(self)

    cdef void begin(self, HTTP1Exchange exchange):
        self.exchange = exchange
        self.is_idle = False
        self.reader.restart()
        self.reader.request_method = exchange.method
        exchange.upstream = self
        exchange.sent_size = 0
        exchange.sent(self.transport.reactor.now_ns)
        self.request_push()

    cdef void request_push(self):
        """Write what the request has gathered; a large one is not kept for a retry."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef Downstream downstream = exchange.downstream
        cdef Py_ssize_t size = exchange.request.size - exchange.sent_size
        if size <= 0:
            return
        self.transport.write(exchange.request.data + exchange.sent_size, size)
        if self.exchange is not exchange:
            return
        exchange.sent_size = exchange.request.size
        if exchange.sent_size > MAX_REPLAY or not exchange.is_replayable:
            exchange.is_replayable = False
            exchange.request.clear()
            exchange.sent_size = 0
        if self.transport.is_congested():
            downstream.transport.pause_reading()
        else:
            downstream.request_writable()

    cdef void writable(self):
        cdef Downstream downstream
        if self.exchange is not None:
            downstream = self.exchange.downstream
            downstream.request_writable()

    cdef void data_received(self, const char* data, Py_ssize_t size):
        cdef const char* cursor = data
        cdef const char* end = data + size
        cdef const char* piece
        cdef Py_ssize_t piece_size
        cdef http1.Event event
        cdef Downstream downstream
        cdef int64_t now_ns = self.transport.reactor.now_ns
        if self.exchange is None:
            self.detach()  # an answer nobody asked for: the next one would be taken for another's
            return
        downstream = self.exchange.downstream
        while True:
            event = self.reader.next_event(&cursor, end, &piece, &piece_size)
            if event == http1.EVENT_DATA:
                self.exchange.response_frame(piece_size)
                if self.exchange.care is not None:
                    self.exchange.care.deadlines.moved(now_ns)
                if not self.exchange.latency_taken:
                    self.exchange.body_began(now_ns)
                downstream.response_data(piece, piece_size)
            elif event == http1.EVENT_HEAD:
                if http1.head.status < 200 and not (http1.head.status == 101 and self.exchange.wants_upgrade):
                    if http1.head.status == 101:
                        self.broken("switched protocols unasked", 502, False)
                        return
                    downstream.response_head(self)
                    self.reader.restart()
                    continue
                if (
                    self.peer_is_tulle and http1.head.status >= 500 and self.exchange.may_retry(True)
                    and marked_unreached()
                ):
                    self.broken("unreached", http1.head.status, True)
                    return
                self.exchange.status = http1.head.status
                if self.exchange.endpoint.penalty is not None:
                    self.exchange.penalty_ns = self.exchange.endpoint.penalty.of(
                        http1.head.status, NOT_GRPC, retry_after_ns()
                    )
                if self.exchange.care is not None and self.exchange.goes_again(ANSWERED, http1.head.status):
                    self.discard(cursor, end)
                    return
                self.exchange.answered(http1.head.status, now_ns)
                downstream.response_head(self)
                if self.exchange is None:
                    return
                if http1.head.status == 101 or (
                    self.exchange.method == http1.METHOD_CONNECT and http1.head.status < 300
                ):
                    self.upgrade(cursor, end - cursor)
                    return
            elif event == http1.EVENT_END:
                if cursor < end:
                    # Bytes after the answer: the connection cannot be trusted with another request.
                    self.exchange.keeps_alive = False
                self.complete()
                return
            elif event == http1.EVENT_TRAILERS:
                downstream.response_trailers()
            elif event == http1.EVENT_ERROR:
                self.broken(self.reader.error, 502, False)
                return
            else:
                downstream.response_flush()
                return
            if self.exchange is None:
                return

    cdef void complete(self):
        """The response is whole: release the connection first, because ending the exchange may want it at once."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef Downstream downstream = exchange.downstream
        cdef int64_t now_ns = self.transport.reactor.now_ns
        self.exchange = None
        exchange.finished(None, now_ns)
        if exchange.keeps_alive and exchange.request_complete and not self.transport.eof and \
                not self.transport.is_outlived:
            self.reader.restart()
            self.observer.connection_idle(self)
        else:
            self.detach()
        downstream.response_end(self)

    cdef void discard(self, const char* cursor, const char* end):
        """The answer in http1.head is not for the client, whose request is sent again. A connection that has nothing
        left to say is kept; to wait for what one has left would be work for nobody."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef Endpoint endpoint = exchange.endpoint
        cdef bint is_clean = exchange.request_complete and exchange.keeps_alive and not http1.head.wants_close
        cdef http1.Event event
        cdef const char* piece
        cdef Py_ssize_t piece_size
        self.exchange = None
        exchange.finished(None, self.transport.reactor.now_ns)
        while is_clean:
            event = self.reader.next_event(&cursor, end, &piece, &piece_size)
            if event != http1.EVENT_DATA and event != http1.EVENT_TRAILERS:
                is_clean = event == http1.EVENT_END and cursor == end and not self.transport.eof
                break
        if is_clean and not self.transport.is_outlived:
            self.reader.restart()
            self.observer.connection_idle(self)
        else:
            self.abandon()
        exchange.again(endpoint)

    cdef void upgrade(self, const char* rest, Py_ssize_t size):
        """Both sides become a tunnel; what followed the head already belongs to it."""
        cdef HTTP1Exchange exchange = self.exchange
        cdef Downstream downstream = exchange.downstream
        cdef Transport transport = self.transport
        self.exchange = None
        self.transport = None
        self.observer.connection_gone(self)
        exchange.finished(None, transport.reactor.now_ns)
        downstream.response_flush()
        downstream.transport.write(rest, size)
        downstream.upgraded(transport)

    cdef void eof_received(self):
        cdef http1.Event event
        if self.exchange is None:
            self.detach()
            return
        event = self.reader.end_of_input()
        if event == http1.EVENT_END:
            self.complete()
        elif event == http1.EVENT_ERROR:
            self.broken("connection closed mid-response", 502, False)
        else:
            self.broken("connection closed before response", 502, self.peer_is_tulle)

    cdef void closed(self, object reason):
        cdef bint was_open = self.is_open
        self.is_open = False
        if not was_open:
            self.observer.connection_failed(self, reason)
            return
        self.transport = None
        if self.exchange is not None:
            self.broken("i/o", 502, False)
        self.observer.connection_gone(self)

    cdef void crashed(self):
        self.closed(ConnectionAbortedError("internal error"))

    cdef void outlived(self):
        """In the pool it is of no more use; a request that is under way is its last."""
        if self.exchange is None:
            self.detach()

    cdef void broken(self, str error, int status, bint unprocessed):
        cdef HTTP1Exchange exchange = self.exchange
        cdef Downstream downstream = exchange.downstream
        self.exchange = None
        self.detach()
        if exchange.response_started:
            exchange.finished(error, downstream.transport.reactor.now_ns)
            downstream.response_broken()
            return
        exchange.lost(error, status, unprocessed)

    cdef void abandon(self):
        """The downstream went away in mid-exchange: whatever comes back has no reader."""
        self.exchange = None
        if self.is_open:
            self.is_open = False
            if self.transport is not None:
                self.transport.abort()
                self.transport = None
            self.observer.connection_gone(self)

    cdef void detach(self):
        """Close and leave the pool."""
        if self.transport is not None:
            self.transport.close()
            self.transport = None
        if self.is_open:
            self.is_open = False
            self.observer.connection_gone(self)


cdef bint marked_unreached():
    cdef int i
    for i in range(http1.head.field_count):
        if http1.head.fields[i].kind == fields.FIELD_L5D_PROXY_ERROR and http1.head.fields[i].value_size >= 9 and \
                fields.equals_ignoring_case(http1.head.fields[i].value, 9, b"unreached"):
            return True
    return False


cdef int64_t retry_after_ns():
    """What the answer in http1.head asks for in seconds (RFC 9110 section 10.2.3); a date counts as nothing said."""
    cdef int i
    for i in range(http1.head.field_count):
        if http1.head.fields[i].name_size == 11 and \
                fields.equals_ignoring_case(http1.head.fields[i].name, 11, b"retry-after"):
            return <int64_t>fields.decimal(http1.head.fields[i].value, http1.head.fields[i].value_size) * 1_000_000_000
    return 0
