# Growable runs of bytes.

cdef class Buffer:
    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef int put(self, const char* data, Py_ssize_t size) except -1
    cdef int put_bytes(self, bytes data) except -1
    cdef int put_number(self, long long number, int base) except -1
    cdef void clear(self)


cdef struct Queue:
    char* data
    Py_ssize_t start      # of what was not taken yet
    Py_ssize_t size       # of all that is held
    Py_ssize_t capacity
    bint keeps            # what was taken stays, so that `rewind` can give it again

cdef int queue_put(Queue* queue, const char* data, Py_ssize_t size) except -1
cdef Py_ssize_t queue_take(Queue* queue, char* into, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t queue_waiting(Queue* queue) noexcept nogil
cdef void queue_rewind(Queue* queue) noexcept nogil
cdef void queue_drop(Queue* queue) noexcept nogil
