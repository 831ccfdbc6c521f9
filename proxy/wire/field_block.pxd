# The fields of one HTTP/2 section, owned: kept to be sent on, and once more for a retry.
from libc.stdint cimport uint8_t

from proxy.wire.nghttp2 cimport nghttp2_nv

cdef struct Entry:
    int name_at, name_size, value_at, value_size
    uint8_t flags


cdef class FieldBlock:
    cdef char* text
    cdef Py_ssize_t size, capacity
    cdef Entry* entries
    cdef int count, room
    cdef Py_ssize_t decoded            # as RFC 9113 section 6.5.2 counts, also what was left out
    cdef int offered                   # fields, also those that were left out
    cdef bint is_too_large             # something was left out
    cdef bint is_absurd                # so much of it that no more should be looked at
    cdef void clear(self)
    cdef int add(self, const char* name, size_t name_size, const char* value, size_t value_size,
                 bint sensitive) except -1
    cdef int fill(self, nghttp2_nv* into)
    cdef const char* find(self, const char* name, int name_size, int* value_size)
