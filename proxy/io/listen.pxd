# Listening sockets.
from proxy.io.address cimport Address
from proxy.io.reactor cimport Pollable, Reactor, Timer


cdef class Acceptor:
    """Who takes the connections of a listener. It owns `fd` from the call on."""
    cdef void accepted(self, int fd, Address peer, Address original)


cdef class Listener(Pollable):
    cdef Reactor reactor
    cdef Acceptor acceptor
    cdef readonly Address address
    cdef bint is_watching
    cdef Timer rest
