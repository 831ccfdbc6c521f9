"""Listening sockets: bind first, accept when told to, so that connections queue in the backlog until the proxy is
ready."""
from libc.string cimport memset

from proxy.io cimport posix
from proxy.io.address cimport Address, address_from_storage, original_destination
from proxy.io.reactor cimport Pollable, Reactor, Timer

cdef enum:
    BACKLOG = 4096
    ACCEPTS_PER_TURN = 64

# How long accepting pauses when the process is out of descriptors: without it a full proxy would spin.
cdef double REST_NS = 100_000_000


cdef class Acceptor:
    cdef void accepted(self, int fd, Address peer, Address original):
        posix.close(fd)


cdef class RestTimer(Timer):
    cdef Listener listener

    cdef void expired(self):
        self.listener.start()


cdef class Listener(Pollable):
    """A bound, listening socket. Raises OSError naming the address when it cannot be had."""

    def __cinit__(self, Reactor reactor not None, Address address not None, Acceptor acceptor not None):
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
        self.rest = rest

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
        self.reactor.disarm(self.rest)
        posix.close(self.fd)
        self.fd = -1

    cdef void ready(self, unsigned int events):
        cdef posix.sockaddr_storage storage
        cdef posix.socklen_t size
        cdef int fd, _turn
        cdef Address original
        for _turn in range(ACCEPTS_PER_TURN):
            if self.fd < 0:
                return
            size = sizeof(storage)
            memset(&storage, 0, sizeof(storage))
            fd = posix.accept4(
                self.fd, <posix.sockaddr*>&storage, &size, posix.SOCK_NONBLOCK | posix.SOCK_CLOEXEC
            )
            if fd < 0:
                if posix.errno == posix.EMFILE or posix.errno == posix.ENFILE:
                    self.reactor.unregister(self)
                    self.is_watching = False
                    self.reactor.arm(self.rest, <long>REST_NS)
                if posix.errno == posix.EINTR or posix.errno == posix.ECONNABORTED:
                    continue
                return
            original = original_destination(fd)
            if original is None:
                posix.close(fd)
                continue
            self.acceptor.accepted(fd, address_from_storage(&storage), original)
