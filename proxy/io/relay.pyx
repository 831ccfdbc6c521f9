"""Two connections joined byte for byte, each half closed as its peer closes it. Used for opaque TCP and for upgraded
HTTP."""
from proxy.io.transport cimport Protocol, Transport


cdef class RelayEnd(Protocol):
    """One side; it reads no faster than the other side writes."""

    cdef void data_received(self, const char* data, Py_ssize_t size):
        cdef Transport out = self.other.transport
        out.write(data, size)
        if out.is_congested():
            self.transport.pause_reading()

    cdef void writable(self):
        self.other.transport.resume_reading()

    cdef void eof_received(self):
        cdef RelayEnd other = self.other  # held: if it breaks now, this end has no other any more
        self.ended = True
        other.transport.shutdown_write()
        if other.ended:
            self.transport.close()
            other.transport.close()
            self.finish()

    cdef void closed(self, object reason):
        """This side broke: the other gets what came before, and then a reset, so that nobody takes it for the whole."""
        self.other.transport.cut()
        self.finish()

    cdef void crashed(self):
        self.closed(None)

    cdef void finish(self):
        cdef RelayEnd other = self.other
        on_end = self.on_end
        self.on_end = None
        if other is not None:
            other.on_end = None
            other.other = None  # both transports have let go of their ends: what is left would be a circle
            self.other = None
        if on_end is not None:
            on_end()


cdef void join(Transport a, Transport b, object on_end):
    """From now on what one receives the other sends; `on_end()` is called once, when both are done."""
    cdef RelayEnd left = RelayEnd.__new__(RelayEnd)
    cdef RelayEnd right = RelayEnd.__new__(RelayEnd)
    left.transport = a
    right.transport = b
    left.other = right
    right.other = left
    left.on_end = on_end
    right.on_end = on_end
    a.protocol = left
    b.protocol = right
    a.resume_reading()
    b.resume_reading()
    if a.eof:
        left.eof_received()
    if b.eof and right.other is not None:
        right.eof_received()
