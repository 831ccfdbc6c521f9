# What stands behind the addresses that the application dials.
from proxy.io.address cimport Address
from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.balance cimport Balancer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Terms
from proxy.stack.pool cimport Limits
from proxy.telemetry.counters cimport EventSeries, TCPSeries
from proxy.telemetry.streams cimport DetectSeries, StreamSeries
from proxy.tls.contexts cimport TLSContexts


cdef class Waiter:
    cdef void discovered(self, Destination destination)


cdef class WaitTimer(Timer):
    cdef Destination destination


cdef class Destination:
    """One original destination: its endpoints, and who waits to hear of them."""
    cdef readonly str address
    cdef Balancer balancer
    cdef Terms terms                  # of its requests; None where there are none
    cdef readonly bint is_known, is_opaque
    cdef readonly tuple labels        # `dst_` labels that hold for every endpoint
    cdef readonly str authority
    cdef object references            # proxy.outbound.references.References
    cdef StreamSeries http_route, http_backend, grpc_route, grpc_backend
    cdef DetectSeries detect_series
    cdef TCPSeries accepted_series
    cdef EventSeries protocol_series
    cdef Destinations owner
    cdef object watch
    cdef object asked                 # what `terms` and the balancer's rules were made of
    cdef list waiters
    cdef WaitTimer timer
    cdef public int users             # connections that go there now
    cdef long long idle_since_ns
    cdef Endpoint endpoint(self, str address, identity, tuple labels, str no_tls_reason, bint is_opaque)
    cdef StreamSeries routes(self, bint is_grpc)
    cdef StreamSeries backends(self, bint is_grpc)
    cdef void balances_requests(self)
    cdef void balances_connections(self)
    cdef DetectSeries detections(self)
    cdef TCPSeries connections(self, Address original)
    cdef EventSeries protocols(self)
    cdef void heed(self, object target)
    cdef void wait(self, Waiter waiter)
    cdef void release(self)
    cdef void tell(self)


cdef class Destinations:
    cdef readonly Reactor reactor
    cdef readonly TLSContexts tls
    cdef readonly object settings, registry, log, discovery
    cdef Limits limits
    cdef readonly dict known          # address text -> Destination
    cdef frozenset own_addresses
    cdef Destination get(self, str address)
