"""A growable run of bytes. Pure."""
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    FIRST = 512
    KEPT = 4096  # a cleared buffer larger than this is given back


cdef char* grown(char* data, Py_ssize_t* capacity, Py_ssize_t wanted) except NULL:
    """`data` with room for `wanted` bytes, by doubling; `capacity` is set. Raises MemoryError and leaves both alone."""
    cdef Py_ssize_t larger = capacity[0] if capacity[0] else FIRST
    cdef char* moved
    while larger < wanted:
        larger *= 2
    moved = <char*>realloc(data, larger)
    if moved == NULL:
        raise MemoryError
    capacity[0] = larger
    return moved


cdef class Buffer:
    def __dealloc__(self):
        if self.data != NULL:
            free(self.data)

    cdef int put(self, const char* data, Py_ssize_t size) except -1:
        if self.size + size > self.capacity:
            self.data = grown(self.data, &self.capacity, self.size + size)
        memcpy(self.data + self.size, data, size)
        self.size += size
        return 0

    cdef int put_bytes(self, bytes data) except -1:
        return self.put(<const char*>data, len(data))

    cdef int put_number(self, long long number, int base) except -1:
        cdef char text[24]
        cdef int size = snprintf(text, sizeof(text), b"%llx" if base == 16 else b"%lld", number)
        return self.put(text, size)

    cdef void clear(self):
        self.size = 0
        if self.capacity > KEPT:
            free(self.data)
            self.data = NULL
            self.capacity = 0


# Queue: bytes go in at one end and leave at the other. A struct, because a stream has two.

cdef int queue_put(Queue* queue, const char* data, Py_ssize_t size) except -1:
    if queue.start > 0 and not queue.keeps:
        if queue.start == queue.size:
            queue.start = queue.size = 0
        elif queue.size + size > queue.capacity:
            memmove(queue.data, queue.data + queue.start, queue.size - queue.start)
            queue.size -= queue.start
            queue.start = 0
    if queue.size + size > queue.capacity:
        queue.data = grown(queue.data, &queue.capacity, queue.size + size)
    memcpy(queue.data + queue.size, data, size)
    queue.size += size
    return 0


cdef Py_ssize_t queue_take(Queue* queue, char* into, Py_ssize_t size) noexcept nogil:
    """Move up to `size` bytes to `into`; returns how many."""
    cdef Py_ssize_t count = queue.size - queue.start
    if count > size:
        count = size
    if count > 0:
        memcpy(into, queue.data + queue.start, count)
        queue.start += count
    return count


cdef Py_ssize_t queue_waiting(Queue* queue) noexcept nogil:
    return queue.size - queue.start


cdef void queue_rewind(Queue* queue) noexcept nogil:
    """Have everything that was kept taken once more."""
    queue.start = 0


cdef void queue_drop(Queue* queue) noexcept nogil:
    free(queue.data)
    queue.data = NULL
    queue.start = queue.size = queue.capacity = 0
