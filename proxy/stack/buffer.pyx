"""A growable run of bytes. Pure."""
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum:
    KEPT = 4096  # a cleared buffer larger than this is given back


cdef class Buffer:
    def __dealloc__(self):
        if self.data != NULL:
            free(self.data)

    cdef int put(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity
        cdef char* grown
        if self.size + size > self.capacity:
            capacity = self.capacity if self.capacity else 512
            while capacity < self.size + size:
                capacity *= 2
            grown = <char*>realloc(self.data, capacity)
            if grown == NULL:
                raise MemoryError
            self.data = grown
            self.capacity = capacity
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
