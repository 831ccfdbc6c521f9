# cython: language_level=3
"""Lets Python watch a server's HTTP/2 session as the data path has it: hooks, and sections in a FieldBlock."""
from libc.stdint cimport int32_t, uint8_t, uint32_t

from proxy.wire cimport http2
from proxy.wire cimport nghttp2 as ng
from proxy.wire.field_block cimport FieldBlock

MAX_STREAMS = 100
CONNECTION_WINDOW = 1 << 20


cdef class Recorder(http2.Session):
    """A server's session. Every hook is an event; what is read is given back at once."""
    cdef list events
    cdef FieldBlock section

    def __init__(self):
        self.events = []
        self.section = FieldBlock()
        self.open(True, MAX_STREAMS, CONNECTION_WINDOW)

    def read(self, bytes data not None):
        self.feed(data, len(data))

    def written(self):
        cdef const uint8_t* data
        cdef Py_ssize_t size
        pieces = []
        while True:
            size = self.take(&data)
            if size == 0:
                return b"".join(pieces)
            pieces.append((<const char*>data)[:size])

    def take_events(self):
        events = self.events
        self.events = []
        return events

    cdef int section_began(self, int32_t stream_id) except -1:
        self.section.clear()
        return 0

    cdef int field(self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
                   bint sensitive) except -1:
        self.section.add(<const char*>name, name_size, <const char*>value, value_size, sensitive)
        return self.section.is_absurd

    cdef int section_ended(self, int32_t stream_id, bint end_stream) except -1:
        cdef ng.nghttp2_nv filled[http2.MAX_FIELDS]
        cdef int count = self.section.fill(filled)
        cdef int i
        cdef int size = 0
        cdef const char* found
        fields = []
        for i in range(count):
            name = (<const char*>filled[i].name)[:filled[i].namelen]
            fields.append((name, (<const char*>filled[i].value)[:filled[i].valuelen]))
            found = self.section.find(<const char*>filled[i].name, <int>filled[i].namelen, &size)
            assert found != NULL
            assert found[:size] == dict(reversed(fields))[name], "the first field of a name is another one"
        self.events.append(("section", stream_id, fields, bool(self.section.is_too_large), bool(end_stream)))
        return 0

    cdef int data(self, int32_t stream_id, const char* data, size_t size) except -1:
        last = self.events[-1] if self.events else None
        if last is not None and last[:2] == ("data", stream_id):
            self.events[-1] = ("data", stream_id, last[2] + data[:size])
        else:
            self.events.append(("data", stream_id, data[:size]))
        self.check(ng.nghttp2_session_consume(self.session, stream_id, size))
        return 0

    cdef int body_ended(self, int32_t stream_id) except -1:
        self.events.append(("ended", stream_id))
        return 0

    cdef int stream_closed(self, int32_t stream_id, uint32_t error_code) except -1:
        self.events.append(("closed", stream_id, error_code))
        return 0

    cdef int going_away(self, int32_t last_stream_id, uint32_t error_code, bytes debug) except -1:
        self.events.append(("going away", last_stream_id, error_code, debug))
        return 0

    cdef int pinged(self, bytes payload) except -1:
        self.events.append(("pinged", payload))
        return 0
