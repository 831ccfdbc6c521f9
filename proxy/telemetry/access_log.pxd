# One line per inbound request on stderr, in Linkerd's `apache` or `json` format.
#
#   AccessLog.line -> AccessLine.request, .header* -> .answered | .unanswered -> AccessLog.put -> flush
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.wire.field_block cimport FieldBlock


cdef class AccessLog(Timer):
    """Where lines are gathered, and written from."""
    cdef Reactor reactor
    cdef readonly bint is_json
    cdef int fd
    cdef list lines
    cdef Py_ssize_t size
    cdef bytes left                  # of a write that would have blocked
    cdef readonly int64_t dropped    # lines that nobody took
    cdef int64_t second
    cdef str second_text
    cdef AccessLine line(self, str client, str identity)
    cdef AccessLine http1_line(self, str client, str identity)
    cdef AccessLine http2_line(self, str client, str identity, FieldBlock head)
    cdef str timestamp(self)
    cdef void put(self, str line)


cdef class AccessLine:
    """What is known of one request until its response begins."""
    cdef AccessLog log
    cdef int64_t began_ns, sent_ns
    cdef str client, identity, timestamp, method, uri, version
    cdef str host, user_agent, request_bytes
    cdef str b3_trace_id, request_id, amazon_trace_id, w3c_trace_id
    cdef void request(self, const char* method, Py_ssize_t method_size, const char* uri, Py_ssize_t uri_size,
                      str version)
    cdef void header(self, const char* name, Py_ssize_t name_size, const char* value, Py_ssize_t size)
    cdef void answered(self, int status, const char* length, Py_ssize_t size)
    cdef void unanswered(self)
    cdef str apache(self)
    cdef void put_json(self, dict shown)
