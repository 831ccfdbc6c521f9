# A client's HTTP/2 connection as events in Python objects: for control streams, whose frames are few.
from libc.stdint cimport int32_t, uint32_t

from proxy.wire.http2 cimport Session


cdef class Event:
    """Base of everything a session reports; `stream_id` is 0 for the connection."""
    cdef readonly int32_t stream_id


cdef class Headers(Event):
    """A complete header section: `informational` for 1xx, else the response."""
    cdef readonly list headers
    cdef readonly bint informational
    cdef readonly bint end_stream


cdef class Data(Event):
    """A piece of the body. The peer may send no more than the window until `consume()` gives it back."""
    cdef readonly bytes data


cdef class Trailers(Event):
    """The header section that ends a stream."""
    cdef readonly list headers


cdef class StreamEnded(Event):
    """The peer has sent its last byte on this stream (END_STREAM)."""


cdef class StreamClosed(Event):
    """Nothing more will happen on this stream: both sides ended, or one reset it with `error_code`."""
    cdef readonly uint32_t error_code


cdef class GoAway(Event):
    """The peer takes no streams above `last_stream_id`; those above were not processed and may be tried again."""
    cdef readonly int32_t last_stream_id
    cdef readonly uint32_t error_code
    cdef readonly bytes debug


cdef class PingAcknowledged(Event):
    """The answer to `ping()`."""
    cdef readonly bytes payload


cdef class Outgoing:
    """The body of one stream that is still to be sent."""
    cdef object chunks
    cdef Py_ssize_t offset
    cdef Py_ssize_t buffered
    cdef bint ended
    cdef bint deferred


cdef class ClientSession(Session):
    cdef list events
    cdef dict outgoing
    cdef list headers              # of the section being received
    cdef Py_ssize_t section_size
    cdef int append(self, Event event, int32_t stream_id) except -1
    cdef int usable(self) except -1
