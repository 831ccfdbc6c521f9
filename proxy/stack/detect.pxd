# Telling HTTP from everything else, on bytes that have been read.
from libc.stdint cimport int64_t

from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
from proxy.telemetry.streams cimport DetectResult, DetectSeries
from proxy.wire.sniff cimport Verdict


cdef class Detected:
    """Who is told. `data` must be taken or copied before returning."""
    cdef void detected(self, Transport transport, Verdict verdict, const char* data, Py_ssize_t size)
    cdef void detection_timed_out(self, Transport transport, const char* data, Py_ssize_t size)
    cdef void detection_ended(self, Transport transport, object reason)


cdef class DetectTimer(Timer):
    cdef DetectHTTP detect


cdef class DetectHTTP(Protocol):
    cdef Reactor reactor
    cdef Transport transport
    cdef Detected then
    cdef Buffer seen
    cdef DetectTimer timer
    cdef int64_t started_ns
    cdef DetectSeries counted_as
    cdef void start(self, Transport transport, double timeout)
    cdef void stop(self, DetectResult result)
    cdef void timed_out(self)
