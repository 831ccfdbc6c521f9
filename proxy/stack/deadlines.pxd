# How long a request, its answer and the silences in between may take.
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer

cdef enum Lateness:
    IN_TIME
    REQUEST_LATE    # the whole of it took too long
    RESPONSE_LATE   # the answer, from the end of the request on, did
    HEADERS_LATE    # this try brought no response head in time
    IDLE_LATE       # nothing moved in either direction


cdef class Timeouts:
    """What a route may set, in nanoseconds; 0 is no limit."""
    cdef readonly int64_t request_ns, response_ns, idle_ns


cdef class Late:
    """Who is told."""
    cdef void late(self, Lateness which)


cdef class Deadlines(Timer):
    """Those of one exchange on one timer: armed for the earliest, looked at again when it fires."""
    cdef Reactor reactor
    cdef Timeouts timeouts
    cdef Late owner
    cdef int64_t began_ns, sent_ns, try_began_ns, try_ns, moved_ns
    cdef void begin(self, Reactor reactor, Timeouts timeouts, Late owner, int64_t now_ns)
    cdef void try_begins(self, int64_t try_ns, int64_t now_ns)
    cdef void request_sent(self, int64_t now_ns)
    cdef void headers_came(self)
    cdef void moved(self, int64_t now_ns)
    cdef void end(self)
    cdef int64_t earliest(self)
    cdef Lateness judge(self, int64_t now_ns)
    cdef void rearm(self, int64_t now_ns)
