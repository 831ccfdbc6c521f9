"""What one request is counted as by route and backend, whatever version of HTTP it is in. Pure: times are arguments.

It is the base of Exchange, so that counting costs no object of its own; every call may come while nothing is counted.
"""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport monotonic_ns
from proxy.telemetry cimport classify
from proxy.telemetry.access_log cimport AccessLine
from proxy.telemetry.streams cimport StreamSeries, error_word
from proxy.wire cimport fields, http1
from proxy.wire.field_block cimport FieldBlock

# Causes whose status was made up by this proxy and says less than the cause.
PROXY_CAUSES = frozenset({"failfast", "loadshed", "request timeout", "response timeout", "response headers timeout",
                          "stream idle timeout"})


cdef class Tally:
    cdef void request_began(self, int64_t now_ns):
        """A request's head has come; forgets whatever was counted before."""
        self.began_ns = now_ns
        self.complete_ns = 0
        self.attempt_ns = 0
        self.is_attempted = False
        self.is_concluded = False
        self.is_grpc = False
        self.route = None
        self.backend = None
        self.line = None

    cdef void routed(self, StreamSeries route, StreamSeries backend):
        """It may go on, under this route, to this backend of it."""
        self.route = route
        self.backend = backend
        route.began(self.began_ns)

    cdef void request_ended(self, int64_t now_ns):
        """The last byte of the request has come."""
        self.complete_ns = now_ns

    cdef void attempt_began(self, int64_t now_ns):
        """It begins to leave for an endpoint."""
        self.attempt_ns = now_ns
        self.is_attempted = True
        if self.line is not None:
            self.line.sent_ns = monotonic_ns()
        if self.backend is not None:
            self.backend.began(now_ns)

    cdef void attempt_ended(self, int status, str error, int64_t now_ns):
        """This try is over; `status` is 0 where no head came, `error` None where all of the response did."""
        if not self.is_attempted:
            return
        self.is_attempted = False
        if self.backend is not None:
            self.backend.ended(
                self.counted_status(status), error_word(error), now_ns - self.attempt_ns,
                now_ns - max(self.complete_ns, self.attempt_ns) if self.complete_ns else 0, now_ns,
            )

    cdef int counted_status(self, int status):
        """What the series of route and backend know an ending by: the HTTP status, for gRPC its code."""
        if not self.is_grpc:
            return status
        return self.grpc_status if self.grpc_status >= 0 else classify.GRPC_UNKNOWN

    cdef void refused(self, int status, str error, int64_t now_ns):
        """The proxy itself answers, with an empty body; the status counts, or the cause where that says more. A gRPC
        client is told a code instead of the status."""
        cdef bint is_cause = error in PROXY_CAUSES
        if self.line is not None:
            self.log_answer(200 if self.is_grpc else status, b"0", 1)
        if self.is_grpc:
            self.grpc_status = classify.GRPC_UNSAID if is_cause else classify.grpc_code(status)
        if is_cause:
            self.concluded(0, error, now_ns)
        else:
            self.concluded(status, None, now_ns)

    cdef void concluded(self, int status, str error, int64_t now_ns):
        """The request is over, and no other try comes. Only the first call counts."""
        if self.is_concluded:
            return
        self.is_concluded = True
        if self.line is not None:
            self.line.unanswered()
            self.line = None
        if self.route is not None:
            self.route.ended(
                self.counted_status(status), error_word(error), now_ns - self.began_ns,
                now_ns - self.complete_ns if self.complete_ns else 0, now_ns,
            )

    cdef void log_answer(self, int status, const char* length, Py_ssize_t size):
        """A response's head goes to the client; `length` is its content-length, NULL for none. Called where `line` is
        not None; only the first counts."""
        cdef AccessLine line = self.line
        self.line = None
        line.answered(status, length, size)

    cdef void log_http1_answer(self):
        """`log_answer` for the response in http1.head."""
        cdef int i
        for i in range(http1.head.field_count):
            if http1.head.fields[i].kind == fields.FIELD_CONTENT_LENGTH:
                self.log_answer(http1.head.status, http1.head.fields[i].value, http1.head.fields[i].value_size)
                return
        self.log_answer(http1.head.status, NULL, 0)

    cdef void log_http2_answer(self, FieldBlock head):
        """`log_answer` for a response in HTTP/2."""
        cdef int size = 0, status = 0, i
        cdef const char* text = head.find(b":status", 7, &size)
        for i in range(size):
            status = status * 10 + text[i] - 48
        size = 0
        text = head.find(b"content-length", 14, &size)
        self.log_answer(status, text, size)
