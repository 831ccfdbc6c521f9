# A growable run of bytes, and writing HTTP into it.
cdef class Buffer:
    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef int put(self, const char* data, Py_ssize_t size) except -1
    cdef int put_bytes(self, bytes data) except -1
    cdef int put_number(self, long long number, int base) except -1
    cdef void clear(self)
