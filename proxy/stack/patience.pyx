"""How long a client may take over sending a request: a head has a time from its first byte to its last, a body one
without any byte.

What a client owes is all that may be cut. A connection between requests owes nothing, nor does one that waits for its
application: neither an answer, nor events of a stream, nor leave to send a body. Nor is a body limited as a whole: a
large one on a slow line is right. A client that is gone, and one that takes nothing of what it is sent, is found by
TCP (`transport.watch_peer`).
"""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Timer


cdef class Patience(Timer):
    """Made for a connection whose request does not come in one piece; most never need one."""

    cdef void wait(self, bint in_head):
        self.moved_ns = self.reactor.now_ns
        if self.slot < 0 or self.in_head != in_head:
            self.in_head = in_head
            self.reactor.arm(self, self.limits.head_ns if in_head else self.limits.body_ns)

    cdef void stop(self):
        self.reactor.disarm(self)

    cdef void expired(self):
        cdef Downstream downstream = self.downstream  # None when the connection has ended meanwhile
        cdef int64_t rest_ns
        if downstream is None:
            return
        if not self.in_head:
            rest_ns = self.limits.body_ns - (self.reactor.now_ns - self.moved_ns)
            if rest_ns > 0:
                self.reactor.arm(self, rest_ns)
                return
        if not downstream.is_late(self.in_head):
            self.reactor.arm(self, self.limits.body_ns)
