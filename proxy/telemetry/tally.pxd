# What one request is counted as, from its head to the end of its response. Exchange is one.
#
#   request_began -> request_frame* -> request_ended        the client's side
#   attempt_began -> response_frame* -> attempt_ended       each try, at its backend
#   log_answer -> concluded | refused                       once: the answer is whole, broken off, or the proxy's own
from libc.stdint cimport int64_t

from proxy.telemetry.access_log cimport AccessLine
from proxy.telemetry.streams cimport StreamSeries
from proxy.wire.field_block cimport FieldBlock


cdef class Tally:
    cdef StreamSeries route          # set by who routes; None is not counted by route
    cdef StreamSeries backend        # likewise; None inbound, where the route says it all
    cdef AccessLine line             # None while there is no access log
    cdef bint is_grpc                # counted, and refused, in gRPC's terms
    cdef int grpc_status             # NOT_GRPC, GRPC_UNSAID, or what headers or trailers said: see classify
    cdef int64_t began_ns, complete_ns, attempt_ns
    cdef bint is_attempted, is_concluded
    cdef void request_began(self, int64_t now_ns)
    cdef void routed(self, StreamSeries route, StreamSeries backend)
    cdef void request_ended(self, int64_t now_ns)
    cdef void attempt_began(self, int64_t now_ns)
    cdef void attempt_ended(self, int status, str error, int64_t now_ns)
    cdef int counted_status(self, int status)
    cdef void refused(self, int status, str error, int64_t now_ns)
    cdef void concluded(self, int status, str error, int64_t now_ns)
    cdef void log_http1_answer(self)
    cdef void log_http2_answer(self, FieldBlock head)
    cdef void log_answer(self, int status, const char* length, Py_ssize_t size)
    cdef inline void request_frame(self, Py_ssize_t size):
        if self.route is not None:
            self.route.request_frame(size)
    cdef inline void response_frame(self, Py_ssize_t size):
        if self.backend is not None:
            self.backend.response_frame(size)
        if self.route is not None:
            self.route.response_frame(size)
