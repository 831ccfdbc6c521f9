"""One request and its response. Pure bookkeeping: how far it is, what it is counted as, whether it may be tried
again."""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport monotonic_ns
from proxy.stack.endpoint cimport Endpoint
from proxy.telemetry.classify cimport NOT_GRPC
from proxy.telemetry.tally cimport Tally

cdef enum:
    MAX_ATTEMPTS = 2  # one retry elsewhere, for a request that never reached an application


cdef class Dispatcher:
    """Finds an Upstream for an Exchange, now or later. Implemented by `balance`."""

    cdef void dispatch(self, Exchange exchange):
        pass

    cdef void forget(self, Exchange exchange):
        pass


cdef class Exchange(Tally):
    """Base of http1_exchange and http2_exchange."""

    cdef void renew(self):
        """Begin with a new request."""
        self.is_active = True
        self.request_complete = False
        self.response_started = False
        self.is_replayable = True
        self.is_sent = False
        self.waiting = False
        self.latency_taken = False
        self.is_unreached = False
        self.attempts = 0
        self.status = 0
        self.grpc_status = NOT_GRPC
        self.endpoint = None
        self.avoid = None
        self.counted_as = None
        self.requests = None
        self.require_id = NULL

    cdef void sent(self, int64_t now_ns):
        """The request begins to leave for its endpoint."""
        self.is_sent = True
        self.requests = self.endpoint.requests if self.counted_as is None else self.counted_as
        self.requests.sent(now_ns)
        self.attempt_began(now_ns)
        self.started_ns = now_ns

    cdef void answered(self, int status, int64_t now_ns):
        self.response_started = True
        self.status = status

    cdef void body_began(self, int64_t now_ns):
        """Latency ends at the first frame of the body, as in Linkerd; without a body, at its end."""
        cdef int64_t elapsed = now_ns - self.started_ns
        if self.latency_taken:
            return
        self.latency_taken = True
        if self.status:
            self.requests.observe(self.status, elapsed)
        if self.endpoint is not None:
            self.endpoint.pending -= 1
            self.endpoint.sample(now_ns, elapsed)

    cdef void finished(self, str error, int64_t now_ns):
        """Count the outcome of this attempt; `error` is None for a response that came whole."""
        if self.endpoint is None:
            return
        self.body_began(now_ns)
        if self.is_sent:
            self.requests.ended(self.status, self.grpc_status, error, now_ns)
            self.attempt_ended(self.status, error, now_ns)
            if self.response_started:
                self.concluded(self.status, error, now_ns)
        self.is_sent = False
        self.endpoint = None

    cdef bint may_retry(self, bint unprocessed):
        return (
            self.is_active and not self.response_started and self.is_replayable and self.attempts < MAX_ATTEMPTS
            and (unprocessed or self.is_idempotent)
        )

    cdef void cancel(self):
        """The client of this proxy is gone: give back whatever the exchange holds, and count what was begun."""
        if not self.is_active:
            return
        self.is_active = False
        if self.waiting:
            self.dispatcher.forget(self)
        self.abandon()
        self.finished("cancelled", monotonic_ns())
        self.concluded(0, "cancelled", monotonic_ns())

    cdef void lost(self, str error, int status, bint unprocessed):
        """The client side is gone before a response: try once elsewhere if that is safe, else answer with `status`.

        `unprocessed` means that no application can have seen the request; otherwise RFC 9110 section 9.2.2 allows to
        send again only what is idempotent.
        """
        cdef Endpoint failed = self.endpoint
        self.finished(error if self.is_sent else None, monotonic_ns())
        if self.may_retry(unprocessed):
            self.avoid = failed
            self.latency_taken = False
            self.dispatcher.dispatch(self)
        elif self.is_active:
            self.is_unreached = unprocessed
            self.refuse(status, error)

    cdef void refuse(self, int status, str error):
        pass

    cdef void abandon(self):
        pass
