# Listening sockets.
from proxy.io.address cimport Address
from proxy.io.reactor cimport Pollable, Reactor, Timer


cdef class Acceptor:
    """Who takes the connections of a listener, or of several."""
    cdef readonly int open             # connections that it was given and that are not closed
    cdef public int most               # and how many these may be; 0 is no limit
    cdef void accepted(self, int fd, Address peer, Address original)   # it owns `fd` from the call on
    cdef void not_accepted(self, str error, object detail)             # a connection was turned away, or has to wait


cdef class Listener(Pollable):
    cdef Reactor reactor
    cdef Acceptor acceptor
    cdef readonly Address address
    cdef bint is_watching
    cdef Timer rest_timer
    cdef void rest(self)


cdef void watch_peer(int fd, int timeout_ms)   # TCP ends what is gone
