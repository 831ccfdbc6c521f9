"""One HTTP/2 connection on one Transport.

Frames are gathered while one event is handled and leave at its end, many in one TLS record: that is what a stream
costs less for than a connection of its own.

Flow control is end to end. A stream's window is given back when its bytes have left on the other side, so a slow
reader is felt by its own writer. The connection's window is given back at once as long as little is held, so that a
slow stream does not stop its neighbours. A server stops reading while its client does not take what it is sent; a
client goes on reading, because two proxies that both waited would wait for ever.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from proxy.io.reactor cimport Pollable, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.wire cimport nghttp2 as ng
from proxy.wire.field_block cimport FieldBlock
from proxy.wire.http2 cimport Session

from proxy.io.listen import PEER_IS_GONE
from proxy.wire.http2 import HTTP2Error

cdef enum:
    GATHERED = 65536          # bytes of frames written at once

# A peer with open streams that was silent for this long is asked for a sign of life, and given as long again.
cdef int64_t KEEPALIVE_NS = 10_000_000_000

# What the receiver of a body may take nothing for when so much is held for receivers like it that the connection's
# window is about to close: then it stands in the way of everybody on the same connection.
cdef int64_t PRESSED_NS = 2_000_000_000
cdef int64_t PRESSED_CHECK_NS = 500_000_000

cdef char GATHER[GATHERED]


cdef class ConnectionProtocol(Protocol):
    """What the transport knows of the connection."""

    cdef void connected(self, Transport transport):
        self.connection.connected(transport)

    cdef void data_received(self, const char* data, Py_ssize_t size):
        self.connection.received(data, size)

    cdef void eof_received(self):
        self.connection.give_up("connection closed")

    cdef void writable(self):
        cdef HTTP2Connection connection = self.connection
        connection.heard()
        connection.flush()
        if connection.transport is not None and not connection.transport.is_congested():
            connection.transport.resume_reading()

    cdef void closed(self, object reason):
        cdef HTTP2Connection connection = self.connection
        if connection.transport is None:
            connection.dial_failed(reason)
            return
        connection.transport = None
        connection.leave("peer timeout" if reason is not None and reason.errno in PEER_IS_GONE else "i/o")

    cdef void crashed(self):
        cdef HTTP2Connection connection = self.connection
        connection.give_up("internal error")

    cdef void outlived(self):
        cdef HTTP2Connection connection = self.connection
        connection.drain()


cdef class Flusher(Pollable):
    """Has the frames of a connection written once, at the end of the event that made them."""

    def __cinit__(self):
        self.fd = -1

    cdef void deferred(self):
        cdef HTTP2Connection connection = self.connection  # None when the connection has ended meanwhile
        if connection is not None:
            connection.flush()

    cdef void crashed(self):
        cdef HTTP2Connection connection = self.connection
        if connection is not None:
            connection.give_up("internal error")


cdef class KeepaliveTimer(Timer):
    cdef void expired(self):
        cdef HTTP2Connection connection = self.connection  # None when the connection has ended meanwhile
        if connection is not None:
            connection.check_alive()


cdef class HTTP2Connection(Session):
    """Base of both sides. Hooks of Session and the methods at the end are theirs."""

    def __cinit__(self):
        self.streams = {}
        self.section = FieldBlock()
        self.flusher = Flusher()
        self.keepalive = KeepaliveTimer()
        self.check_ns = KEEPALIVE_NS

    cdef void adopt(self, Transport transport):
        """Take over `transport`, whose handshake, if any, is done; until `leave`, two helpers refer back to this."""
        self.transport = transport
        self.flusher.connection = self
        self.keepalive.connection = self
        self.reactor = transport.reactor
        self.now_ns = self.heard_ns = self.reactor.now_ns

    # Reading

    cdef void received(self, const char* data, Py_ssize_t size):
        self.heard()
        self.now_ns = self.heard_ns
        try:
            self.feed(data, size)
        except HTTP2Error:
            self.give_up("protocol error")
            return
        self.touch()

    cdef int hold(self, Py_ssize_t size) except -1:
        """Bytes of a body came in and wait to leave on the other side."""
        self.held += size
        if self.held > MAX_HELD:
            self.withheld += size
            if self.is_pressed():
                self.pressed()
            return 0
        return self.check(ng.nghttp2_session_consume_connection(self.session, size))

    cdef bint is_pressed(self):
        """Whether so much is withheld that the window is about to close."""
        return self.withheld > CONNECTION_WINDOW // 2

    cdef void pressed(self):
        """Look soon at who takes nothing, and again until the window is open."""
        if not self.is_watched:
            self.is_watched = True
            self.reactor.arm(self.keepalive, PRESSED_CHECK_NS)

    cdef void handed_on(self, int32_t stream_id, Py_ssize_t size):
        """Held bytes of a stream have left: its peer may send as many more."""
        if self.transport is None:
            return
        ng.nghttp2_session_consume_stream(self.session, stream_id, size)
        self.let_go(size)
        self.touch()

    cdef void let_go(self, Py_ssize_t size):
        self.held -= size
        if self.withheld > 0 and self.held <= MAX_HELD // 2 and self.transport is not None:
            ng.nghttp2_session_consume_connection(self.session, self.withheld)
            self.withheld = 0
            self.touch()

    # Writing

    cdef void touch(self):
        """There is something to write."""
        if self.transport is not None:
            self.reactor.defer(self.flusher)

    cdef void resume(self, int32_t stream_id):
        """More of a body waits for this stream, which had run dry."""
        if self.transport is not None:
            ng.nghttp2_session_resume_data(self.session, stream_id)
            self.touch()

    cdef void flush(self):
        cdef const uint8_t* data
        cdef Py_ssize_t count
        cdef Py_ssize_t used = 0
        if self.transport is None:
            return
        self.now_ns = self.reactor.now_ns
        while not self.transport.is_congested():
            try:
                count = self.take(&data)
            except HTTP2Error:
                self.give_up("protocol error")
                return
            if count == 0:
                break
            if used + count > GATHERED:
                self.transport.write(GATHER, used)
                used = 0
                if self.transport is None:
                    return
            memcpy(GATHER + used, data, count)
            used += count
        if used > 0:
            self.transport.write(GATHER, used)
        if self.transport is None:
            return
        if self.is_over() or (self.abuse is not None and self.transport.is_congested()):
            self.close()
        elif not self.reads_always and self.transport.is_congested():
            self.transport.pause_reading()

    cdef void reset_stream(self, int32_t stream_id, uint32_t error_code):
        if self.transport is not None and not self.failed:
            ng.nghttp2_submit_rst_stream(self.session, ng.NGHTTP2_FLAG_NONE, stream_id, error_code)
            self.touch()

    # Liveness

    cdef void heard(self):
        self.heard_ns = self.reactor.now_ns
        self.awaits_pong = False

    cdef void stream_opened(self):
        if self.keepalive.slot < 0:
            self.reactor.arm(self.keepalive, self.check_ns)

    cdef void check_alive(self):
        """Looked at while streams are open, or bytes wait for the peer to take them."""
        cdef Py_ssize_t unsent
        cdef int64_t silent_ns
        if self.transport is None:
            return
        self.is_watched = self.is_pressed()
        unsent = self.transport.out.size
        if not self.streams and unsent == 0:
            return
        if unsent < self.unsent:
            self.heard()  # it reads, if it says nothing
        self.unsent = unsent
        silent_ns = self.reactor.now_ns - self.heard_ns
        if silent_ns >= 2 * KEEPALIVE_NS and self.awaits_pong:
            self.give_up("keep-alive timeout")
            return
        if silent_ns >= KEEPALIVE_NS and not self.awaits_pong:
            self.awaits_pong = True
            ng.nghttp2_submit_ping(self.session, ng.NGHTTP2_FLAG_NONE, NULL)
            self.touch()
        self.reactor.arm(self.keepalive, PRESSED_CHECK_NS if self.is_watched else self.check_ns)

    # The end

    cdef void close(self):
        """Everything is said: what is queued is sent."""
        cdef Transport transport = self.transport
        if transport is not None:
            self.transport = None
            transport.close()
            self.leave(self.abuse if self.abuse is not None else "connection closed")

    cdef void give_up(self, str error):
        """The connection is of no more use."""
        cdef Transport transport = self.transport
        if transport is not None:
            self.transport = None
            transport.close()
            self.leave(error)

    cdef void leave(self, str error):
        """The transport is gone: end the streams, and let go of what refers back to this connection."""
        self.reactor.disarm(self.keepalive)
        self.keepalive.connection = None
        self.flusher.connection = None
        self.over(error)

    cdef void connected(self, Transport transport):
        pass

    cdef void dial_failed(self, object reason):
        pass

    cpdef void drain(self):
        pass

    cdef void over(self, str error):
        pass
