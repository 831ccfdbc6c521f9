"""Hands accepted connections to other processes, and takes them there. I/O: what becomes of them is the acceptor's.

Each goes, as a descriptor, to the lane whose process has fewest: what it says it has open, and what is on its way to
it. So a process that is stuck gets no more than what keeps it as busy as the others.
"""
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from proxy.io cimport posix
from proxy.io.address cimport Address, address_from_storage
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Pollable, Reactor, Timer

cdef enum:
    MAX_WAITING = 1024       # connections held while no process takes any; beyond, they are closed
    TAKEN_PER_TURN = 64

cdef int64_t RETRY_NS = 10_000_000
# How long taking pauses when this process is out of descriptors; meanwhile its lane fills and others are chosen.
cdef int64_t REST_NS = 100_000_000
# What a process says to have open meanwhile: one that loses what it is given must not look idle.
cdef int64_t FULL = <int64_t>1 << 40

MEMORY_HEADER = HEADER_SLOTS


cdef struct Note:
    # What goes with a descriptor: nobody has to ask the kernel for it a second time.
    int side
    posix.sockaddr_storage peer
    posix.sockaddr_storage original


cdef union Control:
    posix.cmsghdr header
    char space[64]


def end_with_parent():
    """Have the kernel kill this process when the one that started it ends, whatever state both are in."""
    posix.prctl(posix.PR_SET_PDEATHSIG, <unsigned long>9, 0, 0, 0)


cdef class Slots:
    """`memory` is a writable buffer, such as an mmap."""

    def __cinit__(self, object memory not None, *_):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.at = <int64_t*>self.view.buf

    def __dealloc__(self):
        if self.at != NULL:
            PyBuffer_Release(&self.view)

    @property
    def taken(self) -> int:
        return self.at[TAKEN]

    @property
    def open(self) -> int:
        return self.at[OPEN]


cdef class Lane(Slots):
    """The sending end of one process's lane, a SOCK_SEQPACKET socket that its owner closes."""

    def __init__(self, memory, int fd):
        self.fd = fd

    cdef int64_t load(self):
        return self.at[OPEN] + self.handed - self.at[TAKEN]

    cdef bint send(self, Side side, int fd, Address peer, Address original):
        """Whether the lane took it. The descriptor stays the caller's."""
        cdef Note note
        cdef Control control
        cdef posix.iovec piece
        cdef posix.msghdr message
        memset(&control, 0, sizeof(control))
        memset(&message, 0, sizeof(message))
        note.side = <int>side
        note.peer = peer.storage
        note.original = original.storage
        piece.iov_base = &note
        piece.iov_len = sizeof(note)
        message.msg_iov = &piece
        message.msg_iovlen = 1
        message.msg_control = &control
        message.msg_controllen = posix.CMSG_SPACE(sizeof(int))
        control.header.cmsg_level = posix.SOL_SOCKET
        control.header.cmsg_type = posix.SCM_RIGHTS
        control.header.cmsg_len = posix.CMSG_LEN(sizeof(int))
        memcpy(posix.CMSG_DATA(&control.header), &fd, sizeof(int))
        if posix.sendmsg(self.fd, &message, posix.MSG_NOSIGNAL | posix.MSG_DONTWAIT) < 0:
            return False
        self.handed += 1
        return True


cdef class AgainTimer(Timer):
    cdef Lanes lanes

    cdef void expired(self):
        self.lanes.hand_waiting()


cdef class Lanes:
    """The lanes of all processes that take connections now."""

    def __init__(self, Reactor reactor not None):
        cdef AgainTimer again = AgainTimer()
        again.lanes = self
        self.again = again
        self.reactor = reactor
        self.lanes = []
        self.waiting = []

    def add(self, Lane lane not None):
        """It gets connections from now on; those that waited first."""
        self.lanes.append(lane)
        self.hand_waiting()

    def remove(self, Lane lane not None):
        """It gets no more."""
        if lane in self.lanes:
            self.lanes.remove(lane)

    def close(self):
        """Close what still waits."""
        self.reactor.disarm(self.again)
        for _, fd, _, _ in self.waiting:
            posix.close(fd)
        self.waiting = []

    cdef void hand(self, Side side, int fd, Address peer, Address original):
        if not self.waiting and self.offer(side, fd, peer, original):
            posix.close(fd)
        elif len(self.waiting) < MAX_WAITING:
            self.waiting.append((side, fd, peer, original))
            if self.again.slot < 0:
                self.reactor.arm(self.again, RETRY_NS)
        else:
            self.refused += 1
            posix.close(fd)

    cdef bint offer(self, Side side, int fd, Address peer, Address original):
        """Whether any lane took it: the lightest that can; among equals each in its turn."""
        cdef Py_ssize_t count = len(self.lanes), i, index, chosen
        cdef Lane lane, best
        for item in self.lanes:
            (<Lane>item).is_full = False
        while True:
            best = None
            chosen = 0
            for i in range(count):
                index = (self.turn + i) % count
                lane = <Lane>self.lanes[index]
                if not lane.is_full and (best is None or lane.load() < best.load()):
                    best = lane
                    chosen = index
            if best is None:
                return False
            if best.send(side, fd, peer, original):
                self.turn = chosen + 1
                return True
            best.is_full = True

    cdef void hand_waiting(self):
        cdef Py_ssize_t done = 0
        for side, fd, peer, original in self.waiting:
            if not self.offer(<Side><int>side, fd, <Address>peer, <Address>original):
                break
            posix.close(fd)
            done += 1
        del self.waiting[:done]
        if self.waiting and self.again.slot < 0:
            self.reactor.arm(self.again, RETRY_NS)


cdef class Handing(Acceptor):
    """Takes what the listeners of one side accept."""

    def __init__(self, Lanes lanes not None, bint is_inbound):
        self.lanes = lanes
        self.side = INBOUND if is_inbound else OUTBOUND

    cdef void accepted(self, int fd, Address peer, Address original):
        self.lanes.hand(self.side, fd, peer, original)


cdef class RestTimer(Timer):
    cdef Receiving receiving

    cdef void expired(self):
        self.receiving.start()
        self.receiving.say_open()


cdef class Receiving(Pollable):
    """The receiving end of a lane. `lost()` is told of a connection that could not be taken for want of a
    descriptor."""

    def __init__(self, Reactor reactor not None, int fd, Slots slots not None, Acceptor inbound not None,
                 Acceptor outbound not None, lost):
        cdef RestTimer rest = RestTimer()
        rest.receiving = self
        self.rest = rest
        self.fd = fd
        self.reactor = reactor
        self.slots = slots
        self.inbound = inbound
        self.outbound = outbound
        self.lost = lost

    def start(self):
        """Begin (or go on) taking."""
        if self.fd >= 0 and not self.is_watching:
            self.reactor.register(self, posix.EPOLLIN)
            self.is_watching = True

    def pause(self):
        """Take no more for now."""
        if self.is_watching:
            self.reactor.unregister(self)
            self.is_watching = False

    def say_open(self):
        """Write down how many are open, for whoever chooses among processes."""
        self.slots.at[OPEN] = FULL if self.rest.slot >= 0 else self.inbound.open + self.outbound.open

    def take(self):
        """Take what is there: before a drain, which is for what has been taken."""
        self.ready(posix.EPOLLIN)

    cdef void ready(self, unsigned int events):
        cdef Note note
        cdef Control control
        cdef posix.iovec piece
        cdef posix.msghdr message
        cdef posix.ssize_t size
        cdef posix.cmsghdr* header
        cdef Acceptor acceptor
        cdef int fd, _turn
        for _turn in range(TAKEN_PER_TURN):
            memset(&message, 0, sizeof(message))
            piece.iov_base = &note
            piece.iov_len = sizeof(note)
            message.msg_iov = &piece
            message.msg_iovlen = 1
            message.msg_control = &control
            message.msg_controllen = sizeof(control)
            size = posix.recvmsg(self.fd, &message, posix.MSG_DONTWAIT | posix.MSG_CMSG_CLOEXEC)
            if size == 0:
                self.pause()  # the other end is gone, and this process with it
                return
            if size < 0:
                break
            self.slots.at[TAKEN] += 1
            header = posix.CMSG_FIRSTHDR(&message)
            if header == NULL or header.cmsg_type != posix.SCM_RIGHTS:
                # Out of descriptors: the kernel has closed the one that came.
                self.pause()
                self.reactor.arm(self.rest, REST_NS)
                self.lost()
                break
            memcpy(&fd, posix.CMSG_DATA(header), sizeof(int))
            acceptor = self.inbound if note.side == <int>INBOUND else self.outbound
            if acceptor.most and acceptor.open >= acceptor.most:
                posix.close(fd)
                acceptor.not_accepted("too many connections", f"limit {acceptor.most}")
                continue
            acceptor.accepted(fd, address_from_storage(&note.peer), address_from_storage(&note.original))
        self.say_open()
