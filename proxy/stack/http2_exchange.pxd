# A request in HTTP/2 and its response: two streams, and what waits to go from one to the other.
#
#   ServerSide (accepted connection) <-- HTTP2Exchange --> ClientSide (connection to an endpoint)
from libc.stdint cimport int32_t, int64_t, uint32_t

from proxy.stack.buffer cimport Queue
from proxy.stack.exchange cimport Exchange
from proxy.stack.http2_connection cimport HTTP2Connection
from proxy.wire.field_block cimport FieldBlock


cdef class ServerSide(HTTP2Connection):
    cdef int64_t stall_ns            # how long a client may take nothing of a response that waits for it; 0: for ever
    cdef void inform(self, HTTP2Exchange exchange, FieldBlock block)                    # a 1xx
    cdef void respond(self, HTTP2Exchange exchange, FieldBlock block, bint end_stream)
    cdef void response_ended(self, HTTP2Exchange exchange)
    cdef void client_closed(self, HTTP2Exchange exchange)
    cdef void break_off(self, HTTP2Exchange exchange, uint32_t error_code)
    cdef void broken_off(self, int status, str error)                                   # told of a reset of ours
    cdef bint takes_nothing(self, HTTP2Exchange exchange)                               # whether its reader does
    cdef void give_up_reader(self, HTTP2Exchange exchange)
    cdef void refuse_stream(self, HTTP2Exchange exchange, int status, str error)


cdef class ClientSide(HTTP2Connection):
    cdef void begin(self, HTTP2Exchange exchange)
    cdef void abandon_stream(self, HTTP2Exchange exchange, uint32_t error_code)
    cdef bint takes_nothing(self, HTTP2Exchange exchange)                               # whether its application does


cdef class HTTP2Exchange(Exchange):
    cdef ServerSide server
    cdef int32_t server_id
    cdef bint server_open            # the stream is not closed
    cdef ClientSide client           # has been given the request
    cdef int32_t client_id
    cdef bint client_open
    cdef FieldBlock head, trailers, response_trailers
    cdef Queue request_body, response_body
    cdef Py_ssize_t request_taken    # bytes of the body that left at least once
    cdef Py_ssize_t head_held        # bytes of the head, until it is certain not to be sent again
    cdef bint request_waits          # the client stream has run dry
    cdef bint response_waits         # the server stream has run dry
    cdef bint response_complete      # has come whole
    cdef bint response_sent          # has left whole
    cdef int64_t moved_ns            # when the response last moved on, or began to wait for its reader
    cdef Py_ssize_t moved            # bytes that have left since
    cdef int64_t request_moved_ns    # the same of the request
    cdef Py_ssize_t request_moved
    cdef uint32_t reset_code         # with which the client of this proxy left
    cdef void request_ready(self)
    cdef int request_put(self, const char* data, Py_ssize_t size, int64_t now_ns) except -1
    cdef Py_ssize_t request_take(self, char* into, Py_ssize_t size, int64_t now_ns)
    cdef bint upload_is_in_the_way(self, int64_t now_ns, int64_t bound_ns)
    cdef void give_up_upload(self, int64_t now_ns)
    cdef int response_put(self, const char* data, Py_ssize_t size, int64_t now_ns) except -1
    cdef Py_ssize_t response_take(self, char* into, Py_ssize_t size, int64_t now_ns)
    cdef bint is_stalled(self, int64_t now_ns, int64_t bound_ns)
    cdef bint is_in_the_way(self, int64_t now_ns, int64_t bound_ns)
    cdef void drop_request(self)
    cdef void drop_response(self)
