"""The bytes that a connection has yet to send. Pure: a queue in one run of memory, which is given back when it is
empty."""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

# A buffer of SPARE_SIZE that the last busy connection gave back: the next one takes it, instead of growing one of its
# own by doubling and giving that back a moment later.
cdef char* SPARE = NULL


cdef int reserve(Outgoing* out, Py_ssize_t size) except -1:
    """Make room for so many more bytes. Raises MemoryError."""
    global SPARE
    cdef Py_ssize_t capacity
    cdef char* grown
    if out.start + out.size + size <= out.capacity:
        return 0
    if out.data == NULL and SPARE != NULL and KEPT_BUFFER < size <= SPARE_SIZE:
        out.data = SPARE
        out.capacity = SPARE_SIZE
        SPARE = NULL
        return 0
    if out.start > 0:
        memmove(out.data, out.data + out.start, out.size)
        out.start = 0
    if out.size + size > out.capacity:
        capacity = out.capacity * 2 if out.capacity else 2048
        while capacity < out.size + size:
            capacity *= 2
        grown = <char*>realloc(out.data, capacity)
        if grown == NULL:
            raise MemoryError
        out.data = grown
        out.capacity = capacity
    return 0


cdef int append(Outgoing* out, const char* data, Py_ssize_t size) except -1:
    reserve(out, size)
    memcpy(out.data + out.start + out.size, data, size)
    out.size += size
    return 0


cdef void take(Outgoing* out, Py_ssize_t size) noexcept:
    """So many bytes have gone."""
    out.start += size
    out.size -= size
    if out.size == 0:
        out.start = 0
        if out.capacity > KEPT_BUFFER:
            release(out)


cdef void release(Outgoing* out) noexcept:
    """Drop what there is, with its memory."""
    global SPARE
    if SPARE == NULL and out.capacity == SPARE_SIZE:
        SPARE = out.data
    else:
        free(out.data)
    out.data = NULL
    out.start = 0
    out.size = 0
    out.capacity = 0
