# The reactor: one epoll set for every data-plane descriptor, itself one reader of the uvloop loop.
#
#   loop (uvloop) --readable--> Reactor.poll --events--> Pollable.ready     a descriptor has something to say
#                                            --once----> Pollable.deferred  what was put off to the end of the event
#                 --tick------> Timer.expired                              a deadline has passed
from libc.stdint cimport int64_t, uint32_t


cdef int64_t monotonic_ns() noexcept nogil
cdef str errno_name(int code)
cdef object os_error(int code)


cdef class Pollable:
    cdef int fd
    cdef bint is_deferred, is_yielding
    cdef int64_t ends_ns        # when what it was let in for ends, by the reactor's clock; 0: never
    cdef void ready(self, uint32_t events)
    cdef void deferred(self)
    cdef void crashed(self)
    cdef void ended(self)


cdef class Timer:
    cdef int64_t deadline_ns
    cdef Py_ssize_t slot  # index in Reactor.timers, -1 when disarmed
    cdef void expired(self)


cdef class EndTimer(Timer):
    cdef Reactor reactor


cdef class Reactor:
    cdef readonly object loop
    cdef int epfd
    cdef list pollables         # keeps registered descriptors alive; indexed by fd
    cdef list deferred_queue
    cdef list next_turn         # what goes on in the next turn of the loop
    cdef list graveyard         # what was unregistered: kept until the current turn is over, which may still name it
    cdef list timers
    cdef EndTimer end_timer     # when the first of `pollables` ends
    cdef int64_t wake_ns        # when the next tick is due; 0 when no deadline is armed
    cdef object wake_handle     # of the loop, for that tick
    cdef readonly int64_t wakeups  # ticks so far
    cdef bint polling
    cdef readonly int64_t now_ns  # the clock as of the start of the current event
    cdef int register(self, Pollable pollable, uint32_t events) except -1
    cdef void unregister(self, Pollable pollable)
    cdef void defer(self, Pollable pollable)
    cdef void yield_turn(self, Pollable pollable)
    cdef void run_deferred(self)
    cdef void arm(self, Timer timer, int64_t delay_ns)
    cdef void disarm(self, Timer timer)
    cdef void wake_at(self, int64_t deadline_ns)
    cdef void crashed(self, Pollable pollable, exc)
    cdef void ends_after(self, Pollable pollable, int64_t delay_ns)
    cdef void look_for_ends(self, bint all_of_them)
    cdef int64_t time_ns(self)
