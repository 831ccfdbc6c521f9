# How long a client may take over sending a request.
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.http1_exchange cimport Downstream
from proxy.stack.routing cimport ConnectionSet


cdef class Patience(Timer):
    cdef Downstream downstream
    cdef Reactor reactor
    cdef ConnectionSet limits
    cdef int64_t moved_ns
    cdef bint in_head
    cdef void wait(self, bint in_head)     # bytes came, and more are owed
    cdef void stop(self)                   # nothing is owed
