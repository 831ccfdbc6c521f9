"""The fields of one HTTP/2 section. Pure: names and values in one run of bytes, and where each begins."""
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from proxy.wire.http2 cimport MAX_FIELDS, MAX_SECTION
from proxy.wire.nghttp2 cimport NGHTTP2_NV_FLAG_NO_INDEX, NGHTTP2_NV_FLAG_NONE, nghttp2_nv

cdef enum:
    KEPT_TEXT = 4096      # a cleared block larger than this gives its memory back
    FIRST_TEXT = 512
    FIRST_ROOM = 16
    ABSURD = 4            # times the limits: beyond this it is no accident


cdef class FieldBlock:
    """Filled field by field; beyond MAX_FIELDS or MAX_SECTION nothing more is kept and `is_too_large` is set."""

    def __dealloc__(self):
        free(self.text)
        free(self.entries)

    cdef void clear(self):
        self.size = 0
        self.count = 0
        self.decoded = 0
        self.offered = 0
        self.is_too_large = False
        self.is_absurd = False
        if self.capacity > KEPT_TEXT:
            free(self.text)
            self.text = NULL
            self.capacity = 0

    cdef int add(self, const char* name, size_t name_size, const char* value, size_t value_size,
                 bint sensitive) except -1:
        cdef Py_ssize_t wanted = self.size + name_size + value_size
        cdef Py_ssize_t capacity
        cdef void* grown
        cdef Entry* entry
        self.decoded += name_size + value_size + 32
        self.offered += 1
        if self.decoded > ABSURD * MAX_SECTION or self.offered > ABSURD * MAX_FIELDS:
            self.is_absurd = True
        if self.count >= MAX_FIELDS or self.decoded > MAX_SECTION:
            self.is_too_large = True
            return 0
        if wanted > self.capacity:
            capacity = self.capacity if self.capacity else FIRST_TEXT
            while capacity < wanted:
                capacity *= 2
            grown = realloc(self.text, capacity)
            if grown == NULL:
                raise MemoryError
            self.text = <char*>grown
            self.capacity = capacity
        if self.count == self.room:
            grown = realloc(self.entries, (self.room * 2 if self.room else FIRST_ROOM) * sizeof(Entry))
            if grown == NULL:
                raise MemoryError
            self.entries = <Entry*>grown
            self.room = self.room * 2 if self.room else FIRST_ROOM
        entry = &self.entries[self.count]
        entry.name_at = <int>self.size
        entry.name_size = <int>name_size
        entry.value_at = <int>(self.size + name_size)
        entry.value_size = <int>value_size
        entry.flags = NGHTTP2_NV_FLAG_NO_INDEX if sensitive else NGHTTP2_NV_FLAG_NONE
        memcpy(self.text + self.size, name, name_size)
        memcpy(self.text + self.size + name_size, value, value_size)
        self.size = wanted
        self.count += 1
        return 0

    cdef int fill(self, nghttp2_nv* into):
        """Write all fields to `into`, which has room for MAX_FIELDS; valid until the block changes."""
        cdef int i
        for i in range(self.count):
            into[i].name = <unsigned char*>self.text + self.entries[i].name_at
            into[i].namelen = self.entries[i].name_size
            into[i].value = <unsigned char*>self.text + self.entries[i].value_at
            into[i].valuelen = self.entries[i].value_size
            into[i].flags = self.entries[i].flags
        return self.count

    cdef const char* find(self, const char* name, int name_size, int* value_size):
        """The first value of that (lower-case) name, or NULL."""
        cdef int i
        for i in range(self.count):
            if self.entries[i].name_size == name_size and \
                    memcmp(self.text + self.entries[i].name_at, name, name_size) == 0:
                value_size[0] = self.entries[i].value_size
                return self.text + self.entries[i].value_at
        return NULL
