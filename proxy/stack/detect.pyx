"""Telling HTTP from everything else. A connection that cannot be told within the time limit is passed on as opaque,
loudly."""
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
from proxy.telemetry cimport streams
from proxy.telemetry.streams cimport DetectResult, DetectSeries
from proxy.wire cimport sniff


cdef class Detected:
    cdef void detected(self, Transport transport, sniff.Verdict verdict, const char* data, Py_ssize_t size):
        pass

    cdef void detection_timed_out(self, Transport transport, const char* data, Py_ssize_t size):
        pass

    cdef void detection_ended(self, Transport transport, object reason):
        """The client left before it could be told what it speaks; `reason` is None for a clean end."""
        pass


cdef class DetectTimer(Timer):
    cdef void expired(self):
        cdef DetectHTTP detect = self.detect  # held: the next step drops every other reference to it
        if detect is not None:
            detect.timed_out()


cdef class DetectHTTP(Protocol):
    """The protocol of a connection until its first bytes are decided on."""

    def __init__(self, Reactor reactor not None, Detected then not None, DetectSeries counted_as not None):
        self.reactor = reactor
        self.counted_as = counted_as
        self.then = then

    cdef void start(self, Transport transport, double timeout):
        self.transport = transport
        transport.protocol = self
        self.timer = DetectTimer()
        self.timer.detect = self
        self.started_ns = self.reactor.now_ns
        self.reactor.arm(self.timer, <int64_t>(timeout * 1e9))

    cdef void data_received(self, const char* data, Py_ssize_t size):
        cdef sniff.Verdict verdict
        cdef Buffer seen = self.seen
        if seen is not None:
            seen.put(data, size)
            data = seen.data
            size = seen.size
        verdict = sniff.sniff_http(<const unsigned char*>data, size)
        if verdict == sniff.UNDECIDED:
            if seen is None:
                self.seen = Buffer()
                self.seen.put(data, size)
            return
        transport = self.transport
        self.stop(
            streams.DETECTED_HTTP1 if verdict == sniff.IS_HTTP1
            else streams.DETECTED_HTTP2 if verdict == sniff.IS_HTTP2 else streams.DETECTED_NOT_HTTP
        )
        self.then.detected(transport, verdict, data, size)

    cdef void eof_received(self):
        cdef Buffer seen = self.seen
        cdef Transport transport = self.transport
        self.stop(streams.DETECTED_NOT_HTTP)
        if seen is None:
            transport.close()
            self.then.detection_ended(transport, None)
        else:
            self.then.detected(transport, sniff.IS_OPAQUE, seen.data, seen.size)

    cdef void closed(self, object reason):
        cdef Transport transport = self.transport
        self.stop(streams.DETECT_FAILED)
        self.then.detection_ended(transport, reason)

    cdef void crashed(self):
        self.closed(None)

    cdef void timed_out(self):
        cdef Buffer seen = self.seen
        cdef Transport transport = self.transport
        self.stop(streams.DETECT_TIMED_OUT)
        if seen is None:
            self.then.detection_timed_out(transport, b"", 0)
        else:
            self.then.detection_timed_out(transport, seen.data, seen.size)

    cdef void stop(self, DetectResult result):
        cdef int64_t now_ns = self.reactor.now_ns
        self.counted_as.ended(result, now_ns - self.started_ns, now_ns)
        self.reactor.disarm(self.timer)
        self.timer.detect = None
        self.transport = None
