"""Deadlines of one request: the whole of it, the response, the head of each try, the silence between two frames. Knows
the reactor's timers, nothing of what is late nor of what follows.

One timer serves all four. It is armed for the earliest and not touched when something moves: when it fires too early
it is armed again for what is left, so that a frame costs one store and not a timer.
"""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer


cdef class Timeouts:
    """Seconds in, 0 for no limit. Raises ValueError for what is negative."""

    def __init__(self, double request=0.0, double response=0.0, double idle=0.0):
        if request < 0.0 or response < 0.0 or idle < 0.0:
            raise ValueError(f"time limits of {request:g}, {response:g} and {idle:g} s cannot be negative")
        self.request_ns = <int64_t>(request * 1e9)
        self.response_ns = <int64_t>(response * 1e9)
        self.idle_ns = <int64_t>(idle * 1e9)


cdef Timeouts NONE = Timeouts()


cdef class Late:
    cdef void late(self, Lateness which):
        pass


cdef class Deadlines(Timer):
    """`owner.late` is called at most once between `begin` and `end`, and ends it."""

    cdef void begin(self, Reactor reactor, Timeouts timeouts, Late owner, int64_t now_ns):
        """A request has begun. `timeouts` may be None, for tries that have limits of their own."""
        self.reactor = reactor
        self.timeouts = timeouts if timeouts is not None else NONE
        self.owner = owner
        self.began_ns = now_ns
        self.moved_ns = now_ns
        self.sent_ns = 0
        self.try_ns = 0
        self.rearm(now_ns)

    cdef void try_begins(self, int64_t try_ns, int64_t now_ns):
        """The request leaves (again); its response head may take `try_ns`, 0 for any time."""
        self.try_ns = try_ns
        self.try_began_ns = now_ns
        self.moved_ns = now_ns
        if try_ns > 0:
            self.rearm(now_ns)

    cdef void request_sent(self, int64_t now_ns):
        """The client has sent the whole request: the response's time begins."""
        self.sent_ns = now_ns
        self.moved_ns = now_ns
        if self.timeouts.response_ns > 0:
            self.rearm(now_ns)

    cdef void headers_came(self):
        self.try_ns = 0

    cdef void moved(self, int64_t now_ns):
        """A frame went by, in whichever direction."""
        self.moved_ns = now_ns

    cdef void end(self):
        """The exchange is over."""
        if self.owner is None:
            return
        self.owner = None
        self.reactor.disarm(self)

    cdef int64_t earliest(self):
        """When something is late if nothing moves any more; 0 for never."""
        cdef int64_t found = 0
        cdef int64_t each
        if self.timeouts.request_ns > 0:
            found = self.began_ns + self.timeouts.request_ns
        if self.timeouts.response_ns > 0 and self.sent_ns > 0:
            each = self.sent_ns + self.timeouts.response_ns
            found = each if found == 0 else min(found, each)
        if self.timeouts.idle_ns > 0:
            each = self.moved_ns + self.timeouts.idle_ns
            found = each if found == 0 else min(found, each)
        if self.try_ns > 0:
            each = self.try_began_ns + self.try_ns
            found = each if found == 0 else min(found, each)
        return found

    cdef Lateness judge(self, int64_t now_ns):
        """What is late. The whole request goes before its parts: past it, another try is of no use."""
        if self.timeouts.request_ns > 0 and now_ns >= self.began_ns + self.timeouts.request_ns:
            return REQUEST_LATE
        if self.timeouts.response_ns > 0 and self.sent_ns > 0 and now_ns >= self.sent_ns + self.timeouts.response_ns:
            return RESPONSE_LATE
        if self.timeouts.idle_ns > 0 and now_ns >= self.moved_ns + self.timeouts.idle_ns:
            return IDLE_LATE
        if self.try_ns > 0 and now_ns >= self.try_began_ns + self.try_ns:
            return HEADERS_LATE
        return IN_TIME

    cdef void rearm(self, int64_t now_ns):
        cdef int64_t when = self.earliest()
        if when == 0:
            return
        if self.slot < 0 or when < self.deadline_ns:
            self.reactor.arm(self, max(when - now_ns, 0))

    cdef void expired(self):
        cdef Late owner = self.owner
        cdef int64_t now_ns
        cdef Lateness which
        if owner is None:
            return
        now_ns = self.reactor.time_ns()
        which = self.judge(now_ns)
        if which == IN_TIME:
            self.rearm(now_ns)
            return
        if which == HEADERS_LATE:
            self.try_ns = 0       # the exchange may go on with another try
            self.rearm(now_ns)
        else:
            self.owner = None
        owner.late(which)
