# Accepted connections on their way from the process that accepts to those that carry.
#
#   Listener -> Handing.accepted -> Lanes.hand -> Lane ====== sendmsg(SCM_RIGHTS) ======> Receiving -> Acceptor.accepted
#                                        ^-- who has least: slots that the receiver writes, in memory that both see
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Pollable, Reactor, Timer

cdef enum Side:
    INBOUND
    OUTBOUND

cdef enum:
    TAKEN = 0          # slot: connections that the receiver has taken from its lane, ever
    OPEN = 1           # slot: connections that it has open
    HEADER_SLOTS = 8   # of eight bytes; what follows them in the memory is proxy.telemetry.shared's


cdef class Slots:
    """The first numbers of memory that two processes share."""
    cdef Py_buffer view
    cdef int64_t* at


cdef class Lane(Slots):
    cdef readonly int fd
    cdef int64_t handed
    cdef bint is_full               # has refused the connection in hand
    cdef int64_t load(self)
    cdef bint send(self, Side side, int fd, Address peer, Address original)


cdef class Lanes:
    cdef Reactor reactor
    cdef list lanes, waiting
    cdef Timer again
    cdef Py_ssize_t turn            # who is asked first among equals
    cdef readonly int64_t refused   # connections closed because nobody took them
    cdef void hand(self, Side side, int fd, Address peer, Address original)
    cdef bint offer(self, Side side, int fd, Address peer, Address original)
    cdef void hand_waiting(self)


cdef class Handing(Acceptor):
    cdef Lanes lanes
    cdef Side side


cdef class Receiving(Pollable):
    cdef Reactor reactor
    cdef Slots slots
    cdef Acceptor inbound, outbound
    cdef object lost
    cdef Timer rest
    cdef bint is_watching
