# The steps of an inbound connection.
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Reactor, Timer
from proxy.inbound.counting cimport RouteCounts
from proxy.io.transport cimport Protocol, Transport
from proxy.stack.balance cimport Balancer
from proxy.stack.buffer cimport Buffer
from proxy.stack.detect cimport Detected
from proxy.stack.exchange cimport Exchange, Flight
from proxy.stack.pool cimport Limits
from proxy.stack.routing cimport ConnectionSet, Router
from proxy.telemetry.access_log cimport AccessLog
from proxy.telemetry.streams cimport DetectSeries
from proxy.tls.contexts cimport TLSContexts


cdef class Inbound(Acceptor):
    cdef readonly Reactor reactor
    cdef readonly TLSContexts tls
    cdef readonly ConnectionSet connections
    cdef readonly Flight flight
    cdef readonly object settings, registry, log, server_name
    cdef Limits limits
    cdef public AccessLog access_log
    cdef readonly dict ports          # application port -> Port
    cdef set server_names
    cdef frozenset own_addresses
    cdef frozenset own_ports
    cdef int64_t stall_ns
    cdef readonly bint serves_http1_only  # an endpoint of the proxy itself (admin) instead of an application's port
    cdef str objection(self, Address peer, Address original)
    cdef Router router_for(self, InboundConnection connection)
    cdef drop(self, int fd, Address peer, Address original, str error)
    cdef Port port_for(self, Address original)
    cdef void refuse(self, Transport transport, Port port, str error, object detail)


cdef class Port:
    """An application port of this pod: its balancer of one endpoint, and how its clients are treated."""
    cdef readonly Address address
    cdef Balancer balancer
    cdef readonly bint is_opaque, requires_certificate
    cdef readonly frozenset probe_paths
    cdef DetectSeries detections


cdef class InboundConnection(Detected):
    cdef Inbound inbound
    cdef Port port
    cdef Address peer
    cdef Transport transport
    cdef str sni
    cdef tuple tls_labels             # (("tls", ...), ...) once known
    cdef void terminate(self)
    cdef void secured(self)
    cdef void redirect_to_port(self, str alpn)
    cdef void pass_through(self, str name)
    cdef void plaintext(self)
    cdef tuple server_labels(self)
    cdef void detect(self)
    cdef object authorization(self)
    cdef void count_connection(self)
    cdef void forward_opaque(self, const char* data, Py_ssize_t size)
    cdef void serve_http1(self, const char* data, Py_ssize_t size)
    cdef void serve_http2(self, const char* data, Py_ssize_t size)


cdef class PeekTLS(Protocol):
    cdef InboundConnection connection
    cdef PeekTimer timer
    cdef void stop(self)
    cdef void timed_out(self)


cdef class PeekTimer(Timer):
    cdef PeekTLS peek


cdef class AwaitTLS(Protocol):
    cdef InboundConnection connection
    cdef Timer timer
    cdef void stop_timer(self)


cdef class InboundRouter(Router):
    cdef InboundConnection connection
    cdef object authorization         # Authorization, or the sentence of a refusal
    cdef RouteCounts counts, probe_counts
    cdef RouteCounts counts_for(self, str route, str authorization)
    cdef bint is_probe(self, Exchange exchange)
    cdef void tell(self, str event, int status, str cause, str error)
