# A socket address, once parsed: what is dialled, what was dialled, who dialled.
from proxy.io cimport posix


cdef class Address:
    cdef posix.sockaddr_storage storage
    cdef posix.socklen_t size
    cdef readonly str ip
    cdef readonly int port
    cdef readonly str text           # `10.0.0.1:80`, `[fd00::1]:80`
    cdef readonly bint is_loopback
    cdef void describe(self)


cdef Address address_from_storage(posix.sockaddr_storage* storage)
cdef Address original_destination(int fd)
