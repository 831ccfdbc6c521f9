"""One TCP connection, plain or TLS. I/O shell: bytes in, bytes out, nothing of what they mean.

Reads go into one scratch buffer of the process and are handed on at once, so an idle connection holds no read buffer.
Writes made while one event is handled are sent with one system call at its end; with TLS the records are built into
the same buffer. A protocol is held in a local while it is called, because the call may replace it.

Half-close is kept in both worlds: FIN without TLS, close_notify (RFC 8446 section 6.1) and then FIN with it.
"""
from libc.stdint cimport int64_t, uint32_t

from proxy.io cimport outgoing, posix, sockets
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Pollable, Reactor, Timer, errno_name, os_error
from proxy.telemetry.counters cimport TCPSeries
from proxy.tls cimport openssl, records
from proxy.tls.contexts cimport TLSContext
from proxy.tls.peer cimport certificate_name, expect_client, expect_peer, selected_alpn, tls_failure
from proxy.tls.svid cimport seconds_left

cdef char SCRATCH[SCRATCH_SIZE]

# How long a closed connection goes on discarding input, so that a reset does not destroy the response in flight
# (RFC 9112 section 9.6).
cdef int64_t LINGER_NS = 2_000_000_000
# How often a connection that is to be reset looks whether the peer's host has all that was sent.
cdef int64_t CUT_TICK_NS = 20_000_000

cdef enum:
    MAX_LINGER_ROUNDS = 15  # a peer that takes a response this slowly loses the rest of it
    MAX_CUT_ROUNDS = 100    # likewise a peer that takes what came before a cut: two seconds of CUT_TICK_NS
    READS_PER_TURN = 4  # one busy connection hands over after this many scratch-fulls


# The BIO under each SSL: reads from the socket into libssl's buffer, writes into the transport's own output buffer.

cdef int bio_read(openssl.BIO* bio, char* into, int size) noexcept:
    cdef Transport transport = <Transport>openssl.BIO_get_data(bio)
    cdef ssize_t count
    openssl.BIO_clear_retry_flags(bio)
    if transport.drained or transport.fd < 0:
        openssl.BIO_set_retry_read(bio)
        return -1
    count = sockets.receive(transport.fd, into, size, 0)
    if count > 0:
        if count < size and not transport.hangup_seen:
            transport.drained = True
        return <int>count
    if count == 0:
        return 0
    if posix.errno == posix.EAGAIN:
        transport.drained = True
        openssl.BIO_set_retry_read(bio)
    return -1


cdef int bio_write(openssl.BIO* bio, const char* data, int size) noexcept:
    cdef Transport transport = <Transport>openssl.BIO_get_data(bio)
    openssl.BIO_clear_retry_flags(bio)
    try:
        outgoing.append(&transport.out, data, size)
    except MemoryError:
        return -1
    return size


cdef long bio_ctrl(openssl.BIO* bio, int command, long number, void* pointer) noexcept:
    return 1 if command == openssl.BIO_CTRL_FLUSH else 0


cdef openssl.BIO_METHOD* BIO_TRANSPORT = openssl.BIO_meth_new(
    openssl.BIO_get_new_index() | openssl.BIO_TYPE_SOURCE_SINK, b"tulle transport"
)
openssl.BIO_meth_set_read(BIO_TRANSPORT, bio_read)
openssl.BIO_meth_set_write(BIO_TRANSPORT, bio_write)
openssl.BIO_meth_set_ctrl(BIO_TRANSPORT, bio_ctrl)


cdef class Protocol:
    """Base of what reads a connection: ignores everything, which is also what a closed connection is left with."""

    cdef void connected(self, Transport transport):
        pass

    cdef void peeked(self, Transport transport, const char* data, Py_ssize_t size, bint eof):
        pass

    cdef void data_received(self, const char* data, Py_ssize_t size):
        pass

    cdef void eof_received(self):
        pass

    cdef void writable(self):
        pass

    cdef void closed(self, object reason):
        pass

    cdef void crashed(self):
        pass

    cdef void outlived(self):
        pass


cdef Protocol SINK = Protocol()


cdef class CloseTimer(Timer):
    cdef void expired(self):
        cdef Transport transport = self.transport
        if transport is None:
            return
        self.rounds += 1
        if transport.is_cut:
            if transport.has_unsent() and self.rounds < MAX_CUT_ROUNDS:
                transport.reactor.arm(self, CUT_TICK_NS)
            else:
                transport.abort()
            return
        if transport.out.size > 0 and self.rounds < MAX_LINGER_ROUNDS:
            transport.reactor.arm(self, LINGER_NS)
            return
        self.transport = None
        transport.finish("")


cdef Transport new_transport(Reactor reactor, int fd, State state, Protocol protocol):
    """Take over the non-blocking socket `fd`. Raises OSError (the descriptor is closed then)."""
    cdef Transport transport = Transport.__new__(Transport)
    transport.fd = fd
    transport.reactor = reactor
    transport.protocol = protocol
    transport.state = state
    try:
        reactor.register(
            transport, posix.EPOLLIN | posix.EPOLLOUT | posix.EPOLLRDHUP | posix.EPOLLET
        )
    except OSError:
        posix.close(fd)
        transport.fd = -1
        raise
    return transport


cdef class Transport(Pollable):
    """Made by `new_transport` only."""

    def __dealloc__(self):
        if self.ssl != NULL:
            openssl.SSL_free(self.ssl)
        outgoing.release(&self.out)
        if self.fd >= 0:
            posix.close(self.fd)

    def __repr__(self):
        names = ("connecting", "peeking", "handshaking", "open", "closing", "closed")
        return f"<Transport fd={self.fd} {names[<int>self.state]} tls={self.is_tls} peer={self.peer_identity or '-'}>"

    # Events

    cdef void ready(self, uint32_t events):
        cdef Protocol protocol
        cdef int code
        self.drained = False
        if events & ~posix.EPOLLOUT:
            self.has_signalled = True
        if events & (posix.EPOLLRDHUP | posix.EPOLLHUP | posix.EPOLLERR):
            self.hangup_seen = True
        if self.state == OPEN:
            if self.out.size > 0 and events & posix.EPOLLOUT:
                self.flush()
            if self.fd >= 0 and events & ~posix.EPOLLOUT:
                if self.paused:
                    self.read_pending = True
                else:
                    self.read()
        elif self.state == PEEKING:
            if events & ~posix.EPOLLOUT:
                self.peek()
        elif self.state == HANDSHAKING:
            self.handshake()
        elif self.state == CONNECTING:
            if not events & (posix.EPOLLOUT | posix.EPOLLERR | posix.EPOLLHUP):
                return
            code = sockets.pending_error(self.fd)
            if code != 0:
                self.fail(os_error(code))
            elif events & posix.EPOLLOUT:
                protocol = self.protocol
                protocol.connected(self)
        elif self.state == CLOSING:
            if self.out.size > 0 and events & posix.EPOLLOUT:
                self.flush()
            if self.fd >= 0:
                self.linger()

    cdef void deferred(self):
        if self.fd < 0:
            return
        if self.out.size > 0:
            self.flush()
        if self.fd >= 0 and self.read_pending and not self.paused and self.state == OPEN:
            self.read()

    cdef void crashed(self):
        cdef Protocol protocol
        protocol = self.protocol
        protocol.crashed()
        self.abort()

    cdef void ended(self):
        cdef Protocol protocol = self.protocol
        self.is_outlived = True
        protocol.outlived()

    # Reading

    cdef Py_ssize_t receive(self, char* into, Py_ssize_t size):
        """Bytes read, 0 at the end of the stream, -1 when there is nothing for now, or less, and failed."""
        cdef ssize_t count
        if self.is_tls:
            count = records.receive(self.ssl, into, size)
            if count == records.SOCKET_FAILED:
                self.fail(os_error(posix.errno))
            elif count == records.TLS_FAILED:
                self.fail(tls_failure(self.ssl, self.expected_identity))
            return count
        if self.drained:
            return -1
        count = sockets.receive(self.fd, into, size, 0)
        if count > 0:
            if count < size and not self.hangup_seen:
                self.drained = True
            return count
        if count == 0:
            return 0
        if posix.errno == posix.EAGAIN:
            return -1
        self.fail(os_error(posix.errno))
        return records.SOCKET_FAILED

    cdef void read(self):
        cdef Protocol protocol
        cdef Py_ssize_t count
        cdef int turns = READS_PER_TURN
        self.read_pending = False
        while not self.eof and not self.paused and self.state == OPEN:
            if turns == 0:
                self.read_pending = True
                self.reactor.yield_turn(self)
                return
            turns -= 1
            count = self.receive(SCRATCH, SCRATCH_SIZE)
            if count > 0:
                if self.series is not None:
                    self.series.read_bytes += count
                    self.series.touched_ns = self.reactor.now_ns
                protocol = self.protocol
                protocol.data_received(SCRATCH, count)
            elif count == 0:
                self.eof = True
                protocol = self.protocol
                protocol.eof_received()
            else:
                return
        if self.paused:
            self.read_pending = True

    cdef void pause_reading(self):
        self.paused = True

    cdef void resume_reading(self):
        if self.paused:
            self.paused = False
            if self.read_pending:
                self.reactor.defer(self)

    # Writing

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        """Queue bytes; they leave at the end of the current event, or at once when they are many, so that the peer
        works on them while the rest is still being read. Dropped silently once writing is closed."""
        cdef ssize_t count
        cdef int written
        if self.write_closed or self.state != OPEN or size == 0:
            return 0
        if self.series is not None:
            self.series.write_bytes += size
            self.series.touched_ns = self.reactor.now_ns
        if self.is_tls:
            outgoing.reserve(&self.out, size + (size // MAX_RECORD + 1) * RECORD_OVERHEAD)
            openssl.ERR_clear_error()
            written = openssl.SSL_write(self.ssl, data, <int>size)
            if written != size:
                self.fail(tls_failure(self.ssl, self.expected_identity))
                return 0
            if self.out.size >= FLUSH_AT and not self.congested:
                self.send_some(0)
        else:
            if self.out.size == 0 and size >= outgoing.KEPT_BUFFER:
                count = sockets.send(self.fd, data, size, 0)
                if count > 0:
                    data += count
                    size -= count
                elif posix.errno != posix.EAGAIN:
                    self.send_error = posix.errno
            if size > 0:
                outgoing.append(&self.out, data, size)
        if self.out.size > 0:
            self.reactor.defer(self)
            if self.out.size > HIGH_WATER:
                self.congested = True
        return 0

    cdef void send_some(self, int flags):
        """Hand the queue to the socket once. What it does not take, and what goes wrong, is left to `flush`."""
        cdef ssize_t count = sockets.send(self.fd, self.out.data + self.out.start, self.out.size, flags)
        if count > 0:
            outgoing.take(&self.out, count)
        elif posix.errno != posix.EAGAIN:
            self.send_error = posix.errno

    cdef bint is_congested(self):
        return self.congested

    cdef void flush(self):
        cdef Protocol protocol
        cdef ssize_t count
        # The end that follows leaves in one segment with the last bytes: each segment costs as much as all else here.
        cdef int flags = posix.MSG_MORE if self.write_closed and not self.shutdown_sent else 0
        while self.out.size > 0:
            count = sockets.send(self.fd, self.out.data + self.out.start, self.out.size, flags)
            if count < 0:
                if posix.errno != posix.EAGAIN:
                    self.unsendable(posix.errno)
                    return
                break
            outgoing.take(&self.out, count)
        if self.fd < 0:
            return
        if self.out.size == 0 and self.write_closed and not self.shutdown_sent:
            self.shutdown_sent = True
            posix.shutdown(self.fd, posix.SHUT_WR)
            if self.state == CLOSING:
                self.linger()
                return
        if self.congested and self.out.size <= LOW_WATER:
            self.congested = False
            if self.state == OPEN:
                protocol = self.protocol
                protocol.writable()

    cdef void unsendable(self, int code):
        """The socket takes nothing any more. It names the cause once, to whichever call meets it first, and says EPIPE
        to all later ones."""
        if code == posix.EPIPE:
            code = self.send_error or sockets.pending_error(self.fd) or posix.EPIPE
        outgoing.release(&self.out)
        # Data that arrived before a reset is still readable, so reading decides how the connection ended. A host that
        # TCP has given up on has no more to say.
        if code in (posix.EPIPE, posix.ECONNRESET) and self.state == OPEN and not self.paused and not self.eof:
            self.hangup_seen = True
            self.drained = False
            self.write_closed = True
            self.read()
            if self.fd < 0 or not self.eof:
                return
        self.fail(os_error(code))

    cdef void shutdown_write(self):
        """Half-close: what is queued is sent, then close_notify where there is TLS, then FIN."""
        if self.write_closed or self.fd < 0:
            return
        self.write_closed = True
        if self.is_tls and self.state != HANDSHAKING:
            openssl.ERR_clear_error()
            openssl.SSL_shutdown(self.ssl)
        if self.out.size > 0:
            self.reactor.defer(self)
        else:
            self.flush()

    # Starting

    cdef void start_peeking(self):
        """Look at the first bytes without taking them: `peeked` is called at every change until another start_ is."""
        self.state = PEEKING

    cdef void peek(self):
        cdef Protocol protocol
        cdef ssize_t count
        count = sockets.receive(self.fd, SCRATCH, SCRATCH_SIZE, posix.MSG_PEEK)
        if count < 0:
            if posix.errno != posix.EAGAIN:
                self.fail(os_error(posix.errno))
            return
        protocol = self.protocol
        protocol.peeked(self, SCRATCH, count, self.hangup_seen)

    cdef void start_plain(self):
        """Begin handing bytes to the protocol; what was peeked is read again, for good. Of a socket that has not been
        spoken of yet the reactor will say by itself when there is something to read."""
        self.state = OPEN
        self.drained = False
        if self.has_signalled:
            self.read_pending = True
            self.reactor.defer(self)

    cdef void new_ssl(self, TLSContext context):
        cdef openssl.BIO* bio
        self.ssl = openssl.SSL_new(context.ctx)
        bio = openssl.BIO_new(BIO_TRANSPORT)
        if self.ssl == NULL or bio == NULL:
            raise MemoryError
        openssl.BIO_set_data(bio, <void*>self)
        openssl.BIO_set_init(bio, 1)
        openssl.SSL_set_bio(self.ssl, bio, bio)
        self.is_tls = True
        self.drained = False
        self.state = HANDSHAKING

    cdef void start_tls_server(self, TLSContext context, bint require_certificate):
        """Terminate TLS; `connected` follows, or `closed` with a TLSFailure."""
        self.new_ssl(context)
        expect_client(self.ssl, require_certificate)
        self.handshake()

    cdef void start_tls_client(self, TLSContext context, str server_name, str alpn):
        """Start TLS towards a peer that must prove `server_name`, and state the protocol in ALPN."""
        self.new_ssl(context)
        self.expected_identity = server_name
        expect_peer(self.ssl, server_name, alpn)
        self.handshake()

    cdef void handshake(self):
        cdef Protocol protocol
        cdef int result, error
        openssl.ERR_clear_error()
        posix.errno = 0
        result = openssl.SSL_do_handshake(self.ssl)
        if result == 1:
            self.state = OPEN
            self.peer_identity = certificate_name(self.ssl)
            self.alpn = selected_alpn(self.ssl)
            self.reactor.ends_after(self, seconds_left(self.ssl) * 1_000_000_000)
            self.read_pending = True
            self.reactor.defer(self)
            protocol = self.protocol
            protocol.connected(self)
            return
        error = openssl.SSL_get_error(self.ssl, result)
        if self.out.size > 0:
            self.reactor.defer(self)
        if error == openssl.SSL_ERROR_WANT_READ or error == openssl.SSL_ERROR_WANT_WRITE:
            return
        failure = tls_failure(self.ssl, self.expected_identity)
        if self.out.size > 0:
            self.flush()  # the alert that tells the peer why
        if self.fd >= 0:
            self.fail(failure)

    # Ending

    cdef bint is_open(self):
        return self.state == OPEN

    cdef void set_series(self, TCPSeries series):
        """Count this connection under `series` from now on."""
        self.series = series
        series.connection_opened(self.reactor.now_ns)

    cdef void accepted_by(self, Acceptor acceptor):
        """Count this connection among the open ones of `acceptor`."""
        self.acceptor = acceptor
        acceptor.open += 1

    cdef void close(self):
        """Send what is queued and close; input is discarded for a moment so that the peer sees the end, not a reset."""
        if self.state == CLOSING or self.state == CLOSED:
            return
        self.protocol = SINK
        if self.state != OPEN:
            self.finish("")
            return
        self.shutdown_write()
        if self.fd < 0 or self.state == CLOSED:
            return
        self.state = CLOSING
        if self.eof and self.out.size == 0:
            self.finish("")
            return
        self.close_timer = CloseTimer()
        self.close_timer.transport = self
        self.reactor.arm(self.close_timer, LINGER_NS)
        if self.out.size == 0:
            self.linger()

    cdef void conclude(self):
        """Close for a peer that has said all that it was to say: at once, where all is sent that it is told. To what it
        sends after all the kernel answers with a reset, which takes nothing away that has arrived."""
        if self.state == OPEN and not self.is_tls and self.drained:
            if self.out.size > 0:
                self.send_some(posix.MSG_MORE)
            if self.out.size == 0:
                # Not left to close(2): where more has come it drops what waits for its end, and resets.
                posix.shutdown(self.fd, posix.SHUT_WR)
                self.protocol = SINK
                self.finish("")
                return
        self.close()

    cdef void cut(self):
        """End with a reset, but not before the peer has what was sent: what came must arrive, and must not be taken for
        the whole. A reset at once would throw away what is still queued here and in the socket."""
        if self.state != OPEN or not self.has_unsent():
            self.abort()
            return
        self.protocol = SINK
        self.write_closed = True
        self.shutdown_sent = True  # no end of stream: the reset is the end
        self.is_cut = True
        self.state = CLOSING
        self.close_timer = CloseTimer()
        self.close_timer.transport = self
        self.reactor.arm(self.close_timer, CUT_TICK_NS)
        self.linger()

    cdef bint has_unsent(self):
        """Whether anything is not yet with the peer's host."""
        return self.out.size > 0 or sockets.unacknowledged(self.fd) > 0

    cdef void linger(self):
        cdef ssize_t count
        cdef int turns = READS_PER_TURN
        while turns > 0 and not self.drained:
            count = sockets.receive(self.fd, SCRATCH, SCRATCH_SIZE, 0)
            if count == 0 and self.is_cut:
                return
            if count < 0 and posix.errno != posix.EAGAIN:
                # A reset after all was sent is how many clients close.
                self.finish(errno_name(posix.errno) if self.out.size > 0 else "")
                return
            if count == 0 and self.out.size == 0:
                self.finish("")
            if count <= 0:
                return
            turns -= 1

    cdef void abort(self):
        """Drop the connection at once; the peer sees a reset."""
        if self.state == CLOSED:
            return
        sockets.reset_on_close(self.fd)
        self.protocol = SINK
        self.finish("ECONNABORTED")

    cdef void fail(self, object reason):
        """The connection ended by no wish of ours: tell the protocol, once."""
        cdef Protocol protocol = self.protocol
        if self.state == CLOSED:
            return
        self.protocol = SINK
        self.finish(errno_name(reason.errno) if reason.errno else "EPROTO")
        protocol.closed(reason)

    cdef void finish(self, str reason):
        cdef int fd = self.fd
        if self.state == CLOSED:
            return
        self.state = CLOSED
        if self.close_timer is not None:
            self.close_timer.transport = None
            self.reactor.disarm(self.close_timer)
            self.close_timer = None
        self.reactor.unregister(self)
        self.fd = -1
        posix.close(fd)
        outgoing.release(&self.out)
        if self.series is not None:
            self.series.connection_closed(reason)
            self.series = None
        if self.acceptor is not None:
            self.acceptor.open -= 1
            self.acceptor = None
