# Outgoing connections.
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport Protocol, Transport
from proxy.telemetry.counters cimport TCPSeries
from proxy.tls.contexts cimport TLSContext


cdef class Dial(Protocol):
    cdef Protocol then
    cdef Transport transport
    cdef TLSContext context
    cdef str server_name, alpn
    cdef TCPSeries series
    cdef DialTimer timer
    cdef Reactor reactor
    cdef bint tcp_connected
    cdef void stop_timer(self)
    cdef void timed_out(self)


cdef class DialTimer(Timer):
    cdef Dial dial


cdef Dial dial(Reactor reactor, Address address, Protocol then, TLSContext context, str server_name, str alpn,
               int64_t timeout_ns, int peer_timeout_ms, TCPSeries series)
