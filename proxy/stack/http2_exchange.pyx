"""A request in HTTP/2 and its response. What waits to go from one stream to the other is here; neither side may send
more than a stream's window ahead of the other."""
from libc.stdint cimport uint32_t

from proxy.stack.buffer cimport queue_drop, queue_rewind, queue_waiting
from proxy.stack.exchange cimport Exchange
from proxy.stack.http2_connection cimport HTTP2Connection
from proxy.wire.field_block cimport FieldBlock
from proxy.wire.http2 cimport CANCEL, NO_ERROR


cdef class ServerSide(HTTP2Connection):
    """The accepted side. Implemented by `http2_server`."""

    cdef void inform(self, HTTP2Exchange exchange, FieldBlock block):
        pass

    cdef void respond(self, HTTP2Exchange exchange, FieldBlock block, bint end_stream):
        pass

    cdef void response_ended(self, HTTP2Exchange exchange):
        pass

    cdef void client_closed(self, HTTP2Exchange exchange):
        pass

    cdef void break_off(self, HTTP2Exchange exchange, uint32_t error_code):
        pass

    cdef void refuse_stream(self, HTTP2Exchange exchange, int status, str error):
        pass


cdef class ClientSide(HTTP2Connection):
    """The dialled side. Implemented by `http2_client`."""

    cdef void begin(self, HTTP2Exchange exchange):
        pass

    cdef void abandon_stream(self, HTTP2Exchange exchange, uint32_t error_code):
        pass


cdef class HTTP2Exchange(Exchange):
    """Made for each stream that a client opens."""

    def __cinit__(self):
        self.is_http2 = True
        self.head = FieldBlock()
        self.request_body.keeps = True

    def __dealloc__(self):
        queue_drop(&self.request_body)
        queue_drop(&self.response_body)

    cdef void request_ready(self):
        """More of the request has come in."""
        if self.client_open and self.request_waits:
            self.request_waits = False
            self.client.resume(self.client_id)

    cdef void lost(self, str error, int status, bint unprocessed):
        self.client = None
        self.client_open = False
        self.request_waits = False
        queue_rewind(&self.request_body)
        Exchange.lost(self, error, status, unprocessed)

    cdef void refuse(self, int status, str error):
        self.server.refuse_stream(self, status, error)

    cdef void abandon(self):
        cdef ClientSide client = self.client
        if self.client_open:
            self.client_open = False
            client.abandon_stream(self, self.reset_code if self.reset_code != NO_ERROR else CANCEL)
        self.drop_response()

    cdef void drop_request(self):
        """What is left of the request has nowhere to go."""
        cdef Py_ssize_t waiting = self.request_body.size
        waiting -= max(self.request_body.start, self.request_taken) if self.request_body.keeps else \
            self.request_body.start
        queue_drop(&self.request_body)
        if waiting > 0:
            self.server.handed_on(self.server_id, waiting)

    cdef void drop_response(self):
        """What is left of the response has nowhere to go."""
        cdef Py_ssize_t waiting = queue_waiting(&self.response_body)
        queue_drop(&self.response_body)
        if waiting > 0 and self.client is not None:
            self.client.let_go(waiting)
