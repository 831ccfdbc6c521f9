"""One request and its response. Pure bookkeeping: how far it is, what it is counted as, whether it may be tried
again."""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer, monotonic_ns
from proxy.stack.breaker cimport ABANDONED, FAILED, LIMITED, SUCCEEDED, Breaker, Outcome
from proxy.stack.deadlines cimport HEADERS_LATE, IDLE_LATE, REQUEST_LATE, Deadlines, Late, Lateness, Timeouts
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.retry cimport ANSWERED, LIMIT_EXCEEDED, OVERFLOW, RETRY, TIMED_OUT, UNSERVED, Fault, \
    RetryPolicy, Verdict
from proxy.telemetry.classify cimport GRPC_UNSAID, NOT_GRPC, grpc_code, is_failure
from proxy.telemetry.tally cimport Tally

cdef enum:
    MAX_ATTEMPTS = 2  # one retry elsewhere, for a request that never reached an application

cdef str REQUEST_TIMEOUT = "request timeout"
cdef str RESPONSE_TIMEOUT = "response timeout"
cdef str HEADERS_TIMEOUT = "response headers timeout"
cdef str IDLE_TIMEOUT = "stream idle timeout"
cdef str REFUSED = "refused"


cdef class Dispatcher:
    """Finds an Upstream for an Exchange, now or later. Implemented by `balance`."""

    cdef void dispatch(self, Exchange exchange):
        pass

    cdef void forget(self, Exchange exchange):
        pass

    cdef bint is_ready(self):
        return False


cdef class Flight:
    """Load shedding: beyond `limit` requests in hand, one more would only make all of them slower."""

    def __init__(self, int limit):
        self.limit = limit

    cdef bint admits(self, Exchange exchange):
        """Whether one more may be taken in hand; if so it counts until it is concluded."""
        if self.count >= self.limit:
            return False
        self.count += 1
        exchange.flight = self
        return True


cdef class Terms:
    def __init__(self, RetryPolicy retry=None, Timeouts timeouts=None):
        self.retry = retry
        self.timeouts = timeouts


cdef class Pause(Timer):
    cdef void expired(self):
        cdef Exchange exchange = self.exchange
        exchange.waiting = False
        exchange.dispatcher.dispatch(exchange)


cdef class Care(Late):
    """Lives from `attend` until the request is concluded, and refers to its exchange no longer than that."""

    cdef void late(self, Lateness which):
        cdef Exchange exchange = self.exchange
        exchange.late(which)

    cdef void end(self, int64_t now_ns):
        self.deadlines.end()
        if self.pause is not None:
            self.reactor.disarm(self.pause)
            self.pause.exchange = None
        if self.policy is not None:
            self.policy.settled(now_ns)
        self.exchange.care = None
        self.exchange = None


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
        self.penalty_ns = 0
        self.require_id = NULL

    cdef void attend(self, Terms terms, Reactor reactor):
        """Its route has terms: the time limits begin, and it may be tried again."""
        cdef Care care = Care.__new__(Care)
        care.exchange = self
        care.policy = terms.retry
        care.reactor = reactor
        care.deadlines = Deadlines.__new__(Deadlines)
        care.deadlines.begin(reactor, terms.timeouts, care, self.began_ns)
        self.care = care
        if self.complete_ns:
            care.deadlines.request_sent(self.complete_ns)

    cdef void request_ended(self, int64_t now_ns):
        Tally.request_ended(self, now_ns)
        if self.care is not None:
            self.care.deadlines.request_sent(now_ns)

    cdef void sent(self, int64_t now_ns):
        """The request begins to leave for its endpoint."""
        self.is_sent = True
        self.requests = self.endpoint.requests if self.counted_as is None else self.counted_as
        self.requests.sent(now_ns)
        self.attempt_began(now_ns)
        self.started_ns = now_ns
        if self.care is not None:
            self.care.deadlines.try_begins(
                self.care.policy.timeout_of_try(self.care.retries) if self.care.policy is not None else 0, now_ns
            )

    cdef void answered(self, int status, int64_t now_ns):
        """The head of the response that the client gets has come."""
        self.response_started = True
        self.status = status
        if self.care is not None:
            self.care.deadlines.headers_came()
            if self.care.retries > 0 and self.route is not None and \
                    not self.care.policy.wants(ANSWERED, status, self.grpc_status):
                self.route.retry_successes += 1

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
            self.endpoint.sample(now_ns, max(elapsed, self.penalty_ns))
        if self.breaker is not None and not is_failure(self.status, self.grpc_status) and self.status != 429:
            self.breaker.answers(self.ticket)

    cdef void finished(self, str error, int64_t now_ns):
        """Count the outcome of this attempt; `error` is None for a response that came whole."""
        if self.endpoint is None:
            return
        if self.breaker is not None:
            self.judge(error, now_ns)
        if self.care is not None:
            self.care.deadlines.headers_came()  # or never will: this try is not late any more
        self.body_began(now_ns)
        if self.is_sent:
            self.requests.ended(self.status, self.grpc_status, error, now_ns)
            self.attempt_ended(self.status, error, now_ns)
            if self.response_started:
                self.concluded(self.status, error, now_ns)
        self.is_sent = False
        self.endpoint = None

    cdef void concluded(self, int status, str error, int64_t now_ns):
        cdef Care care = self.care  # held: its end drops every other reference to it
        if care is not None:
            care.end(now_ns)
        if self.flight is not None:
            self.flight.count -= 1
            self.flight = None
        Tally.concluded(self, status, error, now_ns)

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
        self.stop_waiting()
        self.abandon()
        self.finished("cancelled", monotonic_ns())
        self.concluded(0, "cancelled", monotonic_ns())

    cdef void stop_waiting(self):
        if not self.waiting:
            return
        if self.care is not None and self.care.pause is not None and self.care.pause.slot >= 0:
            self.waiting = False
            self.care.reactor.disarm(self.care.pause)
        else:
            self.dispatcher.forget(self)

    cdef void lost(self, str error, int status, bint unprocessed):
        """The client side is gone before a response: try once elsewhere if that is safe, then by the terms of the
        route, else answer with `status`.

        `unprocessed` means that no application can have seen the request; otherwise RFC 9110 section 9.2.2 allows to
        send again only what is idempotent.
        """
        cdef Endpoint failed = self.endpoint
        if self.breaker is not None:
            self.judge(error, monotonic_ns())
        self.rewind()
        self.finished(error if self.is_sent else None, monotonic_ns())
        if self.may_retry(unprocessed):
            self.avoid = failed
            self.latency_taken = False
            self.dispatcher.dispatch(self)
        elif self.care is not None and self.goes_again(UNSERVED if error == REFUSED else ANSWERED, status):
            self.again(failed)
        elif self.is_active:
            self.is_unreached = unprocessed
            self.refuse(status, error)

    # By the terms of its route. Called where there are some.

    cdef bint goes_again(self, Fault fault, int status):
        """Whether this failure is made good by another try, of which the caller must then make sure; counted. A gRPC
        request that the proxy would answer itself is judged by the code it would answer with."""
        cdef Care care = self.care
        cdef RetryPolicy policy = care.policy
        cdef int grpc_status = self.grpc_status
        cdef Verdict verdict
        if policy is None or not self.is_active or self.response_started:
            return False
        if grpc_status == GRPC_UNSAID and not self.status:
            grpc_status = grpc_code(status)
        if not policy.wants(fault, status, grpc_status):
            return False
        verdict = policy.decide(
            fault, status, grpc_status, care.retries, self.is_replayable, self.dispatcher.is_ready(), monotonic_ns()
        )
        if self.route is not None:
            if verdict == RETRY:
                self.route.retries += 1
            elif verdict == LIMIT_EXCEEDED:
                self.route.retry_limits += 1
            elif verdict == OVERFLOW:
                self.route.retry_overflows += 1
        return verdict == RETRY

    cdef void again(self, Endpoint failed):
        """This try is over and counted: make another after a pause, elsewhere if there is another endpoint."""
        cdef Care care = self.care
        self.rewind()
        self.avoid = failed
        self.latency_taken = False
        self.attempts = 0
        self.status = 0
        self.penalty_ns = 0
        if self.grpc_status != NOT_GRPC:
            self.grpc_status = GRPC_UNSAID
        if care.pause is None:
            care.pause = Pause.__new__(Pause)
            care.pause.exchange = self
        self.waiting = True
        care.reactor.arm(care.pause, care.policy.backoff(care.retries))
        care.retries += 1

    cdef void late(self, Lateness which):
        """A time limit has passed. What comes of this try later has no listener any more."""
        cdef Endpoint failed = self.endpoint
        cdef int64_t now_ns = monotonic_ns()
        cdef str error = HEADERS_TIMEOUT if which == HEADERS_LATE else REQUEST_TIMEOUT if which == REQUEST_LATE else \
            IDLE_TIMEOUT if which == IDLE_LATE else RESPONSE_TIMEOUT
        self.stop_waiting()
        self.abandon()
        self.finished(error, now_ns)
        if self.response_started:
            self.is_active = False
            self.break_off()
        elif which == HEADERS_LATE and self.goes_again(TIMED_OUT, 504):
            self.again(failed)
        else:
            self.rewind()
            self.refuse(504, error)

    # For the breaker of its endpoint.

    cdef void judge(self, str error, int64_t now_ns):
        """Tell the breaker how this try ended, once. Called where there is one."""
        cdef Breaker breaker = self.breaker
        self.breaker = None
        breaker.observe(self.ticket, self.outcome(error), now_ns)

    cdef Outcome outcome(self, str error):
        if error is None:
            if self.status == 429 or self.grpc_status == 8:
                return LIMITED
            return FAILED if is_failure(self.status, self.grpc_status) else SUCCEEDED
        if error == "cancelled":
            return ABANDONED
        if error == REFUSED:
            return LIMITED
        if (error == REQUEST_TIMEOUT or error == IDLE_TIMEOUT) and not self.request_complete:
            return ABANDONED  # the client has not said all it wants: nobody could have answered
        return FAILED

    # By version

    cdef void refuse(self, int status, str error):
        pass

    cdef void abandon(self):
        pass

    cdef void rewind(self):
        pass

    cdef void break_off(self):
        pass
