"""The steps of an outbound connection.

    accepted -> discovered -> (opaque)  forward_opaque
                           -> (detect)  DetectHTTP -> serve_http | forward_opaque
"""
from libc.stdint cimport int64_t

from proxy.io cimport posix
from proxy.io.address cimport Address
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Reactor
from proxy.io.transport cimport PEEKING, Protocol, Transport, new_transport
from proxy.outbound.discover cimport Destination, Destinations, Waiter
from proxy.stack.detect cimport DetectHTTP, Detected
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Exchange, Flight
from proxy.stack.http1_server cimport HTTP1Server
from proxy.stack.http2_server cimport HTTP2Server
from proxy.stack.opaque cimport OpaqueConnect
from proxy.stack.routing cimport ConnectionSet, Refusal, Router
from proxy.wire cimport sniff


cdef class Outbound(Acceptor):
    """Everything shared by the outbound connections of one proxy."""

    def __init__(self, Reactor reactor not None, Destinations destinations not None, settings, registry, log,
                 own_ports):
        self.reactor = reactor
        self.destinations = destinations
        self.settings = settings
        self.registry = registry
        self.log = log
        self.connections = ConnectionSet(settings.request_head_timeout, settings.request_body_timeout)
        self.flight = Flight(settings.max_in_flight)
        self.own_ports = frozenset(own_ports)
        self.stall_ns = <int64_t>(<double>settings.stall_timeout * 1e9)

    cdef void accepted(self, int fd, Address peer, Address original):
        cdef OutboundConnection connection
        cdef Transport transport
        if original.is_loopback or (original.port in self.own_ports and original.ip in self.destinations.own_addresses):
            # Nothing redirects loopback: somebody dialled the proxy itself, and forwarding would come back here.
            posix.close(fd)
            self.registry.event("outbound_tcp_errors_total", (("error", "loop"), ("target_addr", original.text)))
            self.log.limited("loop", "outbound connection refused: it was not redirected", target=original.text)
            return
        connection = OutboundConnection.__new__(OutboundConnection)
        connection.outbound = self
        connection.original = original
        transport = new_transport(self.reactor, fd, PEEKING, Pending.__new__(Pending))
        (<Pending>transport.protocol).connection = connection
        transport.accepted_by(self)
        transport.peer_address = peer
        connection.transport = transport
        connection.destination = self.destinations.get(original.text)
        connection.destination.wait(connection)

    cdef void not_accepted(self, str error, object detail):
        self.registry.event("outbound_tcp_errors_total", (("error", error), ("target_addr", "")))
        self.log.limited(error, "an outbound connection was not accepted", error=error, detail=detail)


cdef class Pending(Protocol):
    """The connection while its destination is looked up: nothing is read, but its failure is noticed."""

    cdef OutboundConnection connection

    cdef void closed(self, object reason):
        self.connection.is_gone = True


cdef class OutboundConnection(Waiter):
    """What is known of one connection, and the transitions between its steps."""

    cdef void discovered(self, Destination destination):
        cdef DetectHTTP detect
        cdef OutboundDetected detected
        if self.is_gone:
            destination.release()
            return
        self.transport.set_series(destination.connections(self.original))
        self.transport.start_plain()
        destination.protocols().add(self.outbound.reactor.now_ns)
        if destination.is_opaque:
            self.forward_opaque(b"", 0)
            return
        detected = OutboundDetected()
        detected.connection = self
        detect = DetectHTTP(self.outbound.reactor, detected, destination.detections())
        detect.start(self.transport, self.outbound.settings.outbound_detect_timeout)

    cdef void forward_opaque(self, const char* data, Py_ssize_t size):
        cdef OpaqueConnect connect = OpaqueConnect(
            self.destination.balancer, self.outbound.connections, self.opaque_failed, self.opaque_ended
        )
        self.destination.balances_connections()
        self.outbound.registry.event("outbound_tcp_route_open_total", self.destination.references.opaque)
        connect.start(self.transport, data, size)

    def opaque_ended(self):
        self.outbound.registry.event(
            "outbound_tcp_route_close_total",
            self.destination.references.opaque + (("error", "unexpected" if self.has_failed else ""),),
        )
        self.ended()

    def opaque_failed(self, error):
        self.has_failed = True
        self.outbound.registry.event(
            "outbound_tcp_errors_total", (("error", error), ("target_addr", self.original.text))
        )
        self.outbound.log.limited(
            f"forward:{self.original.text}", "cannot forward a connection", target=self.original.text,
            authority=self.destination.authority, error=error,
        )

    def ended(self):
        """The connection is over, whatever it was: its destination has one user less."""
        self.destination.release()

    cdef void serve_http1(self, const char* data, Py_ssize_t size):
        cdef HTTP1Server server = HTTP1Server(OutboundRouter(self), self.outbound.connections, self.ended)
        self.destination.balances_requests()
        server.start(self.transport)
        if size > 0 and server.transport is not None:
            server.data_received(data, size)

    cdef void serve_http2(self, const char* data, Py_ssize_t size):
        cdef HTTP2Server server = HTTP2Server(OutboundRouter(self), self.outbound.connections, self.ended)
        self.destination.balances_requests()
        server.start(self.transport)
        server.received(data, size)


cdef class OutboundDetected(Detected):
    cdef void detected(self, Transport transport, sniff.Verdict verdict, const char* data, Py_ssize_t size):
        if verdict == sniff.IS_HTTP1:
            self.connection.serve_http1(data, size)
        elif verdict == sniff.IS_HTTP2:
            self.connection.serve_http2(data, size)
        else:
            self.connection.forward_opaque(data, size)

    cdef void detection_timed_out(self, Transport transport, const char* data, Py_ssize_t size):
        cdef OutboundConnection connection = self.connection
        connection.outbound.registry.event(
            "tcp_detect_timeout_total", (("direction", "outbound"), ("port", str(connection.original.port)))
        )
        connection.outbound.log.limited(
            f"detect:{connection.original.port}", "outbound protocol detection timed out; mark the port opaque with "
            "config.linkerd.io/opaque-ports", port=connection.original.port, target=connection.original.text,
        )
        connection.forward_opaque(data, size)

    cdef void detection_ended(self, Transport transport, object reason):
        self.connection.ended()


cdef class OutboundRouter(Router):
    """Requests of one connection: all to the balancer of its destination, counted under the endpoint that gets them."""

    def __init__(self, OutboundConnection connection not None):
        self.connection = connection
        self.dispatcher = connection.destination.balancer
        self.client_id = b""
        self.shows_errors = not connection.outbound.settings.disable_informational_headers
        self.stall_ns = connection.outbound.stall_ns

    cdef Refusal route(self, Exchange exchange):
        cdef Destination destination = self.connection.destination
        cdef bytes wanted
        cdef Refusal refusal
        exchange.routed(destination.routes(exchange.is_grpc), destination.backends(exchange.is_grpc))
        if not self.connection.outbound.flight.admits(exchange):
            return Refusal(503, "loadshed", True)
        if exchange.require_id != NULL:
            wanted = exchange.require_id[:exchange.require_id_size]
            refusal = self.require_identity(wanted.decode("latin-1"))
            if refusal is not None:
                return refusal
        if destination.terms is not None:
            exchange.attend(destination.terms, self.connection.outbound.reactor)
        return None

    cdef Refusal require_identity(self, str wanted):
        """l5d-require-id: every endpoint the request might reach must prove that identity, else 502."""
        for item in self.connection.destination.balancer.endpoints:
            if (<Endpoint>item).identity != wanted:
                return Refusal(502, "identity required", True)
        return None

    cdef void refused(self, int status, str error):
        self.tell("outbound request failed", status, error)

    cdef void broken_off(self, int status, str error):
        self.tell("outbound stream reset", status, error)

    cdef void tell(self, str event, int status, str error):
        cdef OutboundConnection connection = self.connection
        connection.outbound.registry.event(
            "outbound_http_errors_total",
            (("error", error), ("status_code", str(status)), ("target_addr", connection.original.text),
             ("authority", connection.destination.authority)),
        )
        connection.outbound.log.limited(
            f"{error}:{connection.original.text}", event, target=connection.original.text,
            authority=connection.destination.authority, status=status, error=error,
        )

    cdef void ended(self, str error):
        """A connection of many requests is over; what was wrong with it, if anything was, is counted."""
        if error != "connection closed" and error != "i/o":
            self.connection.opaque_failed(error)
