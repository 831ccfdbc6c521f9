# Telling HTTP from everything else, on bytes that have been read.
from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.buffer cimport Buffer
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
    cdef void start(self, Transport transport, double timeout)
    cdef void stop(self)
    cdef void timed_out(self)
