# One TCP connection, plain or TLS, and the protocol that reads it.
#
#   CONNECTING -> HANDSHAKING -> OPEN -> CLOSING -> CLOSED        (a plain connection skips HANDSHAKING,
#        |             |           |                               an accepted one starts after CONNECTING,
#        +-------------+-----------+-> CLOSED (failure)            PEEKING stands before HANDSHAKING or OPEN)
from libc.stdint cimport int64_t, uint32_t

from proxy.io.listen cimport Acceptor
from proxy.io.outgoing cimport Outgoing
from proxy.io.reactor cimport Pollable, Reactor, Timer
from proxy.telemetry.counters cimport TCPSeries
from proxy.tls cimport openssl
from proxy.tls.contexts cimport TLSContext

cdef enum State:
    CONNECTING
    PEEKING
    HANDSHAKING
    OPEN
    CLOSING
    CLOSED

cdef enum:
    MAX_RECORD = 16384        # plaintext of one TLS record
    RECORD_OVERHEAD = 22      # what a record of TLS 1.3 adds: header, content type, tag
    SCRATCH_SIZE = 49152      # one read: three full records, into a buffer that all connections share
    FLUSH_AT = 32768          # ciphertext that leaves at once instead of at the end of the event
    HIGH_WATER = 131072       # unsent bytes beyond which whoever feeds this connection must stop reading
    LOW_WATER = 16384         # and below which it may go on


cdef class Protocol:
    """What happens on a connection. Every method is called by its transport only."""
    cdef void connected(self, Transport transport)
    cdef void peeked(self, Transport transport, const char* data, Py_ssize_t size, bint eof)
    cdef void data_received(self, const char* data, Py_ssize_t size)   # must consume or copy all of it
    cdef void eof_received(self)                                       # no more will come; writing is still open
    cdef void writable(self)                                           # congestion is over
    cdef void closed(self, object reason)                              # failed; not called after our own close or abort
    cdef void crashed(self)
    cdef void outlived(self)                                           # a certificate that it rests on has ended


cdef class CloseTimer(Timer):
    cdef Transport transport
    cdef int rounds


cdef class Transport(Pollable):
    cdef Reactor reactor
    cdef Protocol protocol
    cdef State state
    cdef openssl.SSL* ssl
    cdef bint is_outlived               # it was verified by certificates that are of no force any more
    cdef bint is_cut, paused, read_pending, hangup_seen, drained, eof, write_closed, shutdown_sent, congested
    cdef bint has_signalled             # the reactor has said that there was something to read
    cdef int send_error                 # what the socket said when a send failed whose failure is yet to be dealt with
    cdef Outgoing out
    cdef TCPSeries series
    cdef Acceptor acceptor              # that counts it among its open ones; None for a dialled connection
    cdef CloseTimer close_timer
    cdef readonly str peer_identity     # first DNS name of the verified peer certificate, or None
    cdef readonly str alpn              # protocol agreed on, or None
    cdef readonly bint is_tls
    cdef readonly object peer_address   # (ip, port) of the remote end
    cdef readonly object expected_identity

    cdef int write(self, const char* data, Py_ssize_t size) except -1
    cdef bint is_congested(self)
    cdef void pause_reading(self)
    cdef void resume_reading(self)
    cdef void start_peeking(self)
    cdef void start_plain(self)
    cdef void start_tls_server(self, TLSContext context, bint require_certificate)
    cdef void start_tls_client(self, TLSContext context, str server_name, str alpn)
    cdef void shutdown_write(self)
    cdef void close(self)
    cdef void conclude(self)
    cdef void abort(self)
    cdef void cut(self)
    cdef void set_series(self, TCPSeries series)
    cdef void accepted_by(self, Acceptor acceptor)
    cdef bint is_open(self)

    cdef void flush(self)
    cdef void send_some(self, int flags)
    cdef void unsendable(self, int code)
    cdef void read(self)
    cdef Py_ssize_t receive(self, char* into, Py_ssize_t size)
    cdef void peek(self)
    cdef void handshake(self)
    cdef void linger(self)
    cdef bint has_unsent(self)
    cdef void finish(self, str reason)
    cdef void fail(self, object reason)
    cdef void new_ssl(self, TLSContext context)


cdef Transport new_transport(Reactor reactor, int fd, State state, Protocol protocol)
