"""Drives descriptors and deadlines. I/O shell: it knows epoll and the loop, and nothing about bytes.

All connections share one epoll set that uvloop watches as a single descriptor, so an event costs a C call instead of a
Python callback, and a connection needs no handle object of the loop. Descriptors are edge-triggered and registered
once for both directions: a connection never pays `epoll_ctl` again in its life.
"""
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from proxy.io cimport posix

import errno as errno_names

cdef enum:
    BATCH = 64  # events taken at one wake-up; the loop's other work gets its turn between batches

# Resolution of deadlines: they are looked at on a grid of this width, so that many that lie close cost one wake-up.
# Between them nothing wakes: a proxy with a thousand idle connections sleeps until the first of their time limits.
cdef int64_t TICK_NS = 20_000_000


cdef int64_t monotonic_ns() noexcept nogil:
    cdef posix.timespec ts
    posix.clock_gettime(posix.CLOCK_MONOTONIC, &ts)
    return <int64_t>ts.tv_sec * 1_000_000_000 + ts.tv_nsec


cdef str errno_name(int code):
    return errno_names.errorcode.get(code, "EOTHER")


cdef object os_error(int code):
    return OSError(code, posix.strerror(code).decode())


def trim_heap():
    """Give free pages of the heap back to the kernel. glibc keeps them after a burst, such as a thousand handshakes."""
    posix.malloc_trim(0)


cdef class Pollable:
    """Something with a descriptor. Subclasses override `ready` and, if they defer work, `deferred`."""

    cdef void ready(self, uint32_t events):
        pass

    cdef void deferred(self):
        pass

    cdef void crashed(self):
        pass

    cdef void ended(self):
        pass


cdef class Timer:
    """A deadline. Subclasses override `expired`; a timer that fires is disarmed first."""

    def __cinit__(self):
        self.slot = -1

    cdef void expired(self):
        pass


cdef class CallbackTimer(Timer):
    """A deadline that calls a Python function: for configuration-time work, never for the path of a request."""

    cdef object callback

    def __init__(self, callback):
        self.callback = callback

    cdef void expired(self):
        self.callback()

    def start(self, Reactor reactor not None, double seconds):
        reactor.arm(self, <int64_t>(seconds * 1e9))

    def cancel(self, Reactor reactor not None):
        reactor.disarm(self)


cdef class EndTimer(Timer):
    cdef void expired(self):
        self.reactor.look_for_ends(False)


cdef class Reactor:
    """One per process; create it inside the running loop and `close` it when the loop ends."""

    def __cinit__(self, loop):
        self.loop = loop
        self.epfd = posix.epoll_create1(posix.EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise os_error(posix.errno)
        self.pollables = []
        self.deferred_queue = []
        self.next_turn = []
        self.graveyard = []
        self.timers = []
        self.end_timer = EndTimer()
        self.end_timer.reactor = self
        self.now_ns = monotonic_ns()
        loop.add_reader(self.epfd, self.poll)

    def close(self):
        """Stop watching. Registered descriptors stay open; their owners close them."""
        if self.epfd >= 0:
            self.loop.remove_reader(self.epfd)
            if self.wake_handle is not None:
                self.wake_handle.cancel()
                self.wake_handle = None
            posix.close(self.epfd)
            self.epfd = -1

    cdef int register(self, Pollable pollable, uint32_t events) except -1:
        """Watch `pollable.fd`, edge-triggered unless it is a listener's plain EPOLLIN. Raises OSError."""
        cdef posix.epoll_event event
        event.events = events
        event.data.ptr = <void*>pollable
        if posix.epoll_ctl(self.epfd, posix.EPOLL_CTL_ADD, pollable.fd, &event) != 0:
            raise os_error(posix.errno)
        while len(self.pollables) <= pollable.fd:
            self.pollables.append(None)
        self.pollables[pollable.fd] = pollable
        return 0

    cdef void unregister(self, Pollable pollable):
        if pollable.fd < 0 or self.epfd < 0:
            return
        posix.epoll_ctl(self.epfd, posix.EPOLL_CTL_DEL, pollable.fd, NULL)
        self.graveyard.append(pollable)
        self.pollables[pollable.fd] = None

    cdef void defer(self, Pollable pollable):
        """Call `pollable.deferred()` once, after the current event (or in the next turn of the loop when outside
        one)."""
        if pollable.is_deferred:
            return
        pollable.is_deferred = True
        self.deferred_queue.append(pollable)
        if not self.polling and len(self.deferred_queue) == 1:
            self.loop.call_soon(self.run_deferred_soon)

    cdef void yield_turn(self, Pollable pollable):
        """Call `pollable.deferred()` in the next turn of the loop, after whatever else has become ready: for who could
        go on for ever."""
        if pollable.is_yielding:
            return
        pollable.is_yielding = True
        self.next_turn.append(pollable)
        if len(self.next_turn) == 1:
            self.loop.call_soon(self.run_next_turn)

    def run_next_turn(self):
        cdef list queue = self.next_turn
        self.next_turn = []
        self.now_ns = monotonic_ns()
        self.polling = True  # what is deferred meanwhile is run below
        try:
            for item in queue:
                (<Pollable>item).is_yielding = False
                self.defer(<Pollable>item)
            self.run_deferred()
        finally:
            self.polling = False
            self.graveyard.clear()

    def run_deferred_soon(self):
        self.now_ns = monotonic_ns()
        self.run_deferred()
        self.graveyard.clear()

    cdef void run_deferred(self):
        cdef Pollable pollable
        cdef list queue
        while self.deferred_queue:
            queue = self.deferred_queue
            self.deferred_queue = []
            for item in queue:
                pollable = <Pollable>item
                pollable.is_deferred = False
                try:
                    pollable.deferred()
                except Exception as exc:
                    self.crashed(pollable, exc)

    def poll(self):
        """Take one batch of events. Called by the loop when the epoll set is readable."""
        cdef posix.epoll_event events[BATCH]
        cdef int i, count
        cdef Pollable pollable
        count = posix.epoll_wait(self.epfd, events, BATCH, 0)
        self.polling = True
        try:
            for i in range(count):
                pollable = <Pollable><PyObject*>events[i].data.ptr
                if pollable.fd < 0:
                    continue
                self.now_ns = monotonic_ns()
                try:
                    pollable.ready(events[i].events)
                except Exception as exc:
                    self.crashed(pollable, exc)
                if self.deferred_queue:
                    self.run_deferred()
        finally:
            self.polling = False
            if self.graveyard:
                self.graveyard.clear()

    cdef void crashed(self, Pollable pollable, exc):
        """A broken invariant of ours ends its own connection, loudly, and no other."""
        self.loop.call_exception_handler({"message": f"data path failed in {pollable!r}", "exception": exc})
        pollable.crashed()

    # Ends that are hours away and are seldom reached. Together they are one timer, which is set to the first of them:
    # a timer for each connection would be looked at with every tick.

    cdef void ends_after(self, Pollable pollable, int64_t delay_ns):
        """Have `pollable.ended` called after that time (0: never), unless it is unregistered before."""
        if delay_ns == 0:
            return
        pollable.ends_ns = monotonic_ns() + delay_ns
        if self.end_timer.slot < 0 or pollable.ends_ns < self.end_timer.deadline_ns:
            self.arm(self.end_timer, delay_ns)

    def end_all(self):
        """Call `ended` of everything that has an end, now."""
        self.look_for_ends(True)
        self.run_deferred()

    cdef void look_for_ends(self, bint all_of_them):
        cdef Pollable pollable
        cdef list due = []
        cdef int64_t now = monotonic_ns()
        cdef int64_t first = 0
        for item in self.pollables:
            if item is None or (<Pollable>item).ends_ns == 0:
                continue
            pollable = <Pollable>item
            if all_of_them or pollable.ends_ns <= now:
                due.append(pollable)
            elif first == 0 or pollable.ends_ns < first:
                first = pollable.ends_ns
        for item in due:
            pollable = <Pollable>item
            pollable.ends_ns = 0
            if pollable.fd < 0:
                continue
            try:
                pollable.ended()
            except Exception as exc:
                self.crashed(pollable, exc)
        if first != 0:
            self.arm(self.end_timer, first - now)

    cdef int64_t time_ns(self):
        self.now_ns = monotonic_ns()
        return self.now_ns

    cdef void arm(self, Timer timer, int64_t delay_ns):
        """(Re)start `timer`; it fires within one tick after `delay_ns`."""
        timer.deadline_ns = monotonic_ns() + delay_ns
        if timer.slot < 0:
            timer.slot = len(self.timers)
            self.timers.append(timer)
        if self.wake_ns == 0 or timer.deadline_ns <= self.wake_ns - TICK_NS:
            self.wake_at(timer.deadline_ns)

    cdef void wake_at(self, int64_t deadline_ns):
        """Have the next tick on the first point of the grid that is not before `deadline_ns`."""
        if self.wake_handle is not None:
            self.wake_handle.cancel()
        self.wake_ns = (deadline_ns + TICK_NS - 1) // TICK_NS * TICK_NS
        # The loop counts in whole milliseconds: one more, so that it is never early.
        self.wake_handle = self.loop.call_later((self.wake_ns - monotonic_ns()) / 1e9 + 0.001, self.tick)

    cdef void disarm(self, Timer timer):
        cdef Timer last
        if timer.slot < 0:
            return
        last = <Timer>self.timers.pop()
        if last is not timer:
            self.timers[timer.slot] = last
            last.slot = timer.slot
        timer.slot = -1

    def tick(self):
        """Fire what is due, then sleep until the earliest deadline of the rest. Due timers are collected first, because
        firing one may arm or disarm others."""
        cdef Timer timer
        cdef list due = []
        cdef int64_t earliest = 0
        self.wakeups += 1
        self.wake_handle = None
        # Nothing is earlier than now: what is armed meanwhile is found when the earliest is looked for.
        self.now_ns = self.wake_ns = monotonic_ns()
        for item in self.timers:
            timer = <Timer>item
            if timer.deadline_ns <= self.now_ns:
                due.append(timer)
        for item in due:
            timer = <Timer>item
            if timer.slot >= 0 and timer.deadline_ns <= self.now_ns:
                self.disarm(timer)
                try:
                    timer.expired()
                except Exception as exc:
                    self.loop.call_exception_handler({"message": f"deadline failed in {timer!r}", "exception": exc})
        self.run_deferred()
        self.graveyard.clear()
        self.wake_ns = 0
        for item in self.timers:
            timer = <Timer>item
            if earliest == 0 or timer.deadline_ns < earliest:
                earliest = timer.deadline_ns
        if earliest:
            self.wake_at(earliest)
