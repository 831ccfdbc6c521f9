# The bytes that a connection has yet to send.
cdef enum:
    KEPT_BUFFER = 4096        # a drained buffer larger than this is given back
    SPARE_SIZE = 65536

cdef struct Outgoing:
    char* data
    Py_ssize_t start, size, capacity

cdef int reserve(Outgoing* out, Py_ssize_t size) except -1
cdef int append(Outgoing* out, const char* data, Py_ssize_t size) except -1
cdef void take(Outgoing* out, Py_ssize_t size) noexcept
cdef void release(Outgoing* out) noexcept
