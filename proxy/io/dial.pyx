"""Outgoing connections: TCP, then TLS where asked for, each within its time limit; then the connection is handed to its
protocol."""
from libc.stdint cimport int64_t

from proxy.io cimport posix, sockets
from proxy.io.address cimport Address
from proxy.io.listen cimport watch_peer
from proxy.io.pyprotocol cimport PyProtocol
from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport CONNECTING, Protocol, Transport, new_transport
from proxy.telemetry.counters cimport TCPSeries
from proxy.tls.contexts cimport TLSContext

import errno as errno_names

# A handshake waits for the peer's processor, not only for the network: cutting it as short as a connect makes a busy
# peer do the work again and again for nobody.
cdef int64_t HANDSHAKE_NS = 3_000_000_000


cdef class DialTimer(Timer):
    cdef void expired(self):
        cdef Dial dial = self.dial  # held: giving up drops every other reference to it
        if dial is not None:
            dial.timed_out()


cdef class Dial(Protocol):
    """One attempt. `then.connected` follows, or `then.closed` with an OSError that says why not."""

    cdef void connected(self, Transport transport):
        cdef Protocol then = self.then
        if not self.tcp_connected:
            self.tcp_connected = True
            if self.series is not None:
                transport.set_series(self.series)
            if self.context is not None:
                self.reactor.arm(self.timer, HANDSHAKE_NS)
                transport.start_tls_client(self.context, self.server_name, self.alpn)
                return
            transport.start_plain()
        self.stop_timer()
        transport.protocol = then
        then.connected(transport)

    cdef void closed(self, object reason):
        self.stop_timer()
        self.then.closed(reason)

    cdef void crashed(self):
        self.closed(ConnectionAbortedError("internal error"))

    cdef void stop_timer(self):
        self.reactor.disarm(self.timer)
        self.timer.dial = None
        self.transport = None

    cdef void timed_out(self):
        if self.transport is not None:
            self.transport.abort()
        self.stop_timer()
        self.then.closed(TimeoutError(errno_names.ETIMEDOUT, "connect timed out"))


class DescriptorsExhausted(OSError):
    """A connection that was not even tried. It is this proxy's fault, and says nothing of the endpoint."""

    cause = "descriptors exhausted"


cdef class FailedDial(Timer):
    """Reports an immediate failure from the ticker, so that `then` is never called from inside `dial`."""

    cdef Protocol then
    cdef object reason

    cdef void expired(self):
        self.then.closed(self.reason)


cdef Dial dial(Reactor reactor, Address address, Protocol then, TLSContext context, str server_name, str alpn,
               int64_t timeout_ns, int peer_timeout_ms, TCPSeries series):
    """`peer_timeout_ms` is that of `watch_peer`: 0 for an application of this pod."""
    cdef Dial attempt = Dial.__new__(Dial)
    cdef FailedDial failed
    cdef int code
    cdef int fd = posix.socket(
        address.storage.ss_family, posix.SOCK_STREAM | posix.SOCK_NONBLOCK | posix.SOCK_CLOEXEC, 0
    )
    attempt.reactor = reactor
    attempt.then = then
    attempt.context = context
    attempt.server_name = server_name
    attempt.alpn = alpn
    attempt.series = series
    attempt.timer = DialTimer()
    if fd >= 0:
        sockets.prepare(fd)
        watch_peer(fd, peer_timeout_ms)
    if fd < 0 or (
        posix.connect(fd, <posix.sockaddr*>&address.storage, address.size) != 0 and posix.errno != posix.EINPROGRESS
    ):
        failed = FailedDial()
        failed.then = then
        code = posix.errno
        kind = DescriptorsExhausted if code == posix.EMFILE or code == posix.ENFILE else OSError
        failed.reason = kind(code, posix.strerror(code).decode())
        if fd >= 0:
            posix.close(fd)
        reactor.arm(failed, 0)
        return attempt
    attempt.transport = new_transport(reactor, fd, CONNECTING, attempt)
    attempt.transport.peer_address = address
    attempt.timer.dial = attempt
    reactor.arm(attempt.timer, timeout_ns)
    return attempt


def dial_control(Reactor reactor not None, Address address not None, PyProtocol protocol not None,
                 TLSContext context, str server_name, str alpn, double timeout):
    """Dial for a protocol written in Python. `context` None means plaintext; `timeout` is in seconds."""
    dial(reactor, address, protocol, context, server_name, alpn, <int64_t>(timeout * 1e9), 0, None)
