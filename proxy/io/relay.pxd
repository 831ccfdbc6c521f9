# Two connections joined byte for byte.
from proxy.io.transport cimport Protocol, Transport


cdef class RelayEnd(Protocol):
    cdef Transport transport
    cdef RelayEnd other
    cdef bint ended
    cdef object on_end
    cdef void finish(self)


cdef void join(Transport a, Transport b, object on_end)
