"""Listening sockets: bind first, accept when told to, so that connections queue in the backlog until the proxy is
ready."""
from libc.string cimport memset

from proxy.io cimport posix, sockets
from proxy.io.address cimport Address, address_from_storage, original_destination
from proxy.io.reactor cimport Pollable, Reactor, Timer

import errno as errno_names
import resource

cdef enum:
    BACKLOG = 4096
    ACCEPTS_PER_TURN = 64

# How long accepting pauses when the process, or the machine, is out of descriptors: without it a full proxy would spin.
# Who dials meanwhile waits in the backlog, and is served when descriptors come back.
cdef double REST_NS = 100_000_000

# What TCP says of another host that answers no more, or takes nothing (`watch_peer`).
PEER_IS_GONE = frozenset({errno_names.ETIMEDOUT, errno_names.EHOSTUNREACH})


cdef class Acceptor:
    cdef void accepted(self, int fd, Address peer, Address original):
        posix.close(fd)

    cdef void not_accepted(self, str error, object detail):
        pass


cdef class RestTimer(Timer):
    cdef Listener listener

    cdef void expired(self):
        self.listener.start()


cdef class Listener(Pollable):
    """A bound, listening socket. Raises OSError naming the address when it cannot be had.

    With `peer_timeout` (seconds) what it accepts comes from other hosts, and is watched for life.
    """

    def __cinit__(self, Reactor reactor not None, Address address not None, Acceptor acceptor not None,
                  double peer_timeout=0):
        cdef int on = 1
        cdef posix.sockaddr_storage bound
        cdef posix.socklen_t size = sizeof(bound)
        cdef RestTimer rest = RestTimer()
        self.fd = posix.socket(
            address.storage.ss_family, posix.SOCK_STREAM | posix.SOCK_NONBLOCK | posix.SOCK_CLOEXEC, 0
        )
        if self.fd < 0:
            raise OSError(posix.errno, f"cannot listen on {address.text}: {posix.strerror(posix.errno).decode()}")
        posix.setsockopt(self.fd, posix.SOL_SOCKET, posix.SO_REUSEADDR, &on, sizeof(on))
        sockets.prepare(self.fd)
        watch_peer(self.fd, <int>(peer_timeout * 1000))
        if (
            posix.bind(self.fd, <posix.sockaddr*>&address.storage, address.size) != 0
            or posix.listen(self.fd, BACKLOG) != 0
        ):
            raise OSError(posix.errno, f"cannot listen on {address.text}: {posix.strerror(posix.errno).decode()}")
        posix.getsockname(self.fd, <posix.sockaddr*>&bound, &size)
        self.address = address_from_storage(&bound)
        self.reactor = reactor
        self.acceptor = acceptor
        rest.listener = self
        self.rest_timer = rest

    def start(self):
        """Begin (or go on) accepting."""
        if self.fd >= 0 and not self.is_watching:
            self.reactor.register(self, posix.EPOLLIN)
            self.is_watching = True

    def close(self):
        """Stop listening; connections accepted before go on."""
        if self.fd < 0:
            return
        if self.is_watching:
            self.reactor.unregister(self)
        self.reactor.disarm(self.rest_timer)
        posix.close(self.fd)
        self.fd = -1

    cdef void ready(self, unsigned int events):
        cdef posix.sockaddr_storage storage
        cdef posix.socklen_t size
        cdef int fd, code, _turn
        cdef Address original
        cdef Acceptor acceptor = self.acceptor
        for _turn in range(min(waiting(self.fd), ACCEPTS_PER_TURN)):
            if self.fd < 0:
                return
            size = sizeof(storage)
            memset(&storage, 0, sizeof(storage))
            fd = posix.accept4(
                self.fd, <posix.sockaddr*>&storage, &size, posix.SOCK_NONBLOCK | posix.SOCK_CLOEXEC
            )
            if fd < 0:
                code = posix.errno
                if code == posix.EINTR or code == posix.ECONNABORTED:
                    continue
                if code == posix.EMFILE or code == posix.ENFILE:
                    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if code == posix.EMFILE else "fs.file-max"
                    acceptor.not_accepted("descriptors exhausted", f"limit {limit}")
                    self.rest()
                elif code != posix.EAGAIN:
                    acceptor.not_accepted("cannot accept", errno_names.errorcode.get(code, code))
                    self.rest()
                return
            if acceptor.most and acceptor.open >= acceptor.most:
                posix.close(fd)
                acceptor.not_accepted("too many connections", f"limit {acceptor.most}")
                continue
            original = original_destination(fd)
            if original is None:
                posix.close(fd)
                continue
            acceptor.accepted(fd, address_from_storage(&storage), original)

    cdef void rest(self):
        self.reactor.unregister(self)
        self.is_watching = False
        self.reactor.arm(self.rest_timer, <long>REST_NS)


cdef int waiting(int fd):
    """How many connections wait to be accepted, when the reactor has said that there are some. To accept until nobody
    is left costs more: the kernel makes a socket before it looks whether there is anything to put into it."""
    cdef posix.tcp_info info
    cdef posix.socklen_t size = sizeof(info)
    info.tcpi_unacked = 0
    posix.getsockopt(fd, posix.IPPROTO_TCP, posix.TCP_INFO, &info, &size)
    return max(1, <int>info.tcpi_unacked)  # of a listener: the length of its queue


cdef void watch_peer(int fd, int timeout_ms):
    """Have TCP end a connection whose other host is gone, or takes nothing: a proxy must not hold memory for either,
    for ever. 0 is for connections inside the pod, whose other end is this very kernel.

    TCP_USER_TIMEOUT bounds how long what was sent may go without an acknowledgement, and how long the peer's window may
    stay shut: a reader that rests longer with a full window loses its connection, as with Linkerd. Keep-alive finds a
    host that went while nothing was under way; three probes fit into the time. Both are the chart's of Linkerd, 10 s
    and 30 s. Whoever merely has nothing to say acknowledges probes, and is left alone.
    """
    cdef int seconds = max(1, timeout_ms // 3000)
    if timeout_ms <= 0:
        return
    posix.setsockopt(fd, posix.IPPROTO_TCP, posix.TCP_KEEPIDLE, &seconds, sizeof(seconds))
    posix.setsockopt(fd, posix.IPPROTO_TCP, posix.TCP_KEEPINTVL, &seconds, sizeof(seconds))
    posix.setsockopt(fd, posix.IPPROTO_TCP, posix.TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms))
