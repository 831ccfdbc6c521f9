"""The steps of an inbound connection. Each step ends by starting the next; the labels grow as more is known of the
client.

    accepted -> PeekTLS -> (our SNI) AwaitTLS -> DetectHTTP | by ALPN -> serve_http | forward_opaque
                        -> (another SNI)                                            -> forward_opaque
                        -> (no TLS)              DetectHTTP                         -> serve_http | forward_opaque
"""
from libc.stdint cimport int64_t

from proxy.inbound.counting cimport RouteCounts
from proxy.io cimport posix
from proxy.io.address cimport Address
from proxy.io.listen cimport Acceptor
from proxy.io.reactor cimport Reactor, Timer
from proxy.io.transport cimport PEEKING, Protocol, Transport, new_transport
from proxy.stack.balance cimport Balancer
from proxy.stack.detect cimport DetectHTTP, Detected
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.exchange cimport Exchange, Flight
from proxy.stack.http1_server cimport HTTP1Server
from proxy.stack.http2_server cimport HTTP2Server
from proxy.stack.opaque cimport OpaqueConnect
from proxy.stack.pool cimport Limits
from proxy.stack.routing cimport ConnectionSet, Refusal, Router
from proxy.telemetry.counters cimport TCPSeries
from proxy.telemetry.streams cimport DetectSeries
from proxy.tls.contexts cimport TLSContexts
from proxy.wire cimport http1, sniff

from proxy.api.names import InvalidNameError, parse_dns_name
from proxy.inbound.authorize import Authorization, ClientInfo, Unauthorized, authorize
from proxy.inbound.counting import authorization_named, route_named
from proxy.tls.contexts import ALPN_HTTP1, ALPN_HTTP2, ALPN_OPAQUE, opaque_port

# Seconds that an opaque port waits for a ClientHello before it takes the client for plaintext. Proxies do not depend
# on it (they use the inbound port for opaque connections); it serves a client whose idea of the port differs from
# ours.
cdef double OPAQUE_GRACE = 0.05

cdef enum:
    MAX_PORTS = 1024       # a port scan must not fill memory; what is forgotten is made again on use
    MAX_SERVER_NAMES = 100  # distinct SNI values in labels; later ones are counted as `other`
    MAX_HELLO = 16389      # one TLS record: a ClientHello that needs more is not ours

INBOUND_PORT = 4143


cdef class Port:
    pass


cdef class Inbound(Acceptor):
    """Everything shared by the inbound connections of one proxy. `settings` is proxy.settings.Settings."""

    def __init__(self, Reactor reactor not None, TLSContexts tls not None, settings, registry, log, own_ports):
        self.reactor = reactor
        self.tls = tls
        self.settings = settings
        self.registry = registry
        self.log = log
        self.connections = ConnectionSet(settings.request_head_timeout, settings.request_body_timeout)
        self.flight = Flight(settings.max_in_flight)
        self.server_name = settings.identity.dns_name
        self.own_addresses = frozenset(str(ip) for ip in settings.pod_ips)
        self.own_ports = frozenset(own_ports)
        self.ports = {}
        self.server_names = set()
        self.stall_ns = <int64_t>(<double>settings.stall_timeout * 1e9)
        self.limits = Limits(
            settings.inbound_connect_timeout, settings.inbound_failfast_timeout, settings.http1_pool_idle_timeout,
            backs_off=False,
        )

    cdef void accepted(self, int fd, Address peer, Address original):
        cdef InboundConnection connection
        cdef PeekTLS peek
        cdef Port port
        cdef Transport transport
        error = self.objection(peer, original)
        if error is not None:
            self.drop(fd, peer, original, error)
            return
        port = self.port_for(original)
        connection = InboundConnection.__new__(InboundConnection)
        connection.inbound = self
        connection.port = port
        connection.peer = peer
        peek = PeekTLS()
        peek.connection = connection
        transport = new_transport(self.reactor, fd, PEEKING, peek)
        transport.accepted_by(self)
        transport.peer_address = peer
        connection.transport = transport
        peek.timer = PeekTimer()
        peek.timer.peek = peek
        self.reactor.arm(
            peek.timer,
            <int64_t>((OPAQUE_GRACE if port.is_opaque else <double>self.settings.inbound_detect_timeout) * 1e9),
        )

    cdef void not_accepted(self, str error, object detail):
        self.registry.event("inbound_tcp_errors_total", (("error", error), ("target_port", "")))
        self.log.limited(error, "an inbound connection was not accepted", error=error, detail=detail)

    cdef str objection(self, Address peer, Address original):
        """Why a connection may not even be looked at, or None."""
        if self.own_addresses and original.ip not in self.own_addresses and not peer.is_loopback:
            return "not this pod's address"
        if original.port in self.own_ports and original.port != INBOUND_PORT:
            return "gateway loop"
        return None

    cdef Router router_for(self, InboundConnection connection):
        return InboundRouter(connection)

    cdef drop(self, int fd, Address peer, Address original, str error):
        posix.close(fd)
        self.registry.event("inbound_tcp_errors_total", (("error", error), ("target_port", str(original.port))))
        self.log.limited(error, "inbound connection refused", client=peer.text, target=original.text, error=error)

    cdef Port port_for(self, Address original):
        cdef Port port = self.ports.get(original.text)
        cdef Endpoint endpoint
        cdef int number = original.port
        settings = self.settings
        if port is None:
            port = Port.__new__(Port)
            port.address = original
            port.is_opaque = number in settings.inbound_opaque_ports
            port.requires_certificate = number not in settings.inbound_tls_unauthenticated_ports
            port.probe_paths = frozenset(probe.path for probe in settings.inbound_probes if probe.port == number)
            endpoint = Endpoint(original, None, (), "loopback")
            endpoint.count_under(
                None,
                # Without the target, as in Linkerd: it may be any port that somebody tries.
                self.registry.connections.get(
                    (("direction", "inbound"), ("peer", "dst"), ("tls", "no_identity"), ("no_tls_reason", "loopback"))
                ),
            )
            port.balancer = Balancer(self.reactor, self.tls, self.limits)
            port.balancer.update([endpoint])
            if len(self.ports) >= MAX_PORTS:
                self.ports.clear()
            self.ports[original.text] = port
        return port

    cdef void refuse(self, Transport transport, Port port, str error, object detail):
        """End a connection before it reached anything, and say why."""
        cdef Address peer = transport.peer_address
        transport.abort()
        self.registry.event("inbound_tcp_errors_total", (("error", error),) + target_labels(port.address))
        self.log.limited(
            f"{error}:{port.address.port}", "inbound connection refused", client=peer.text, port=port.address.port,
            error=error, detail=str(detail),
        )


cdef tuple target_labels(Address address):
    return (("target_addr", address.text), ("target_ip", address.ip), ("target_port", str(address.port)))


cdef class PeekTimer(Timer):
    cdef void expired(self):
        cdef PeekTLS peek = self.peek  # held: the next step drops every other reference to it
        if peek is not None:
            peek.timed_out()


cdef class PeekTLS(Protocol):
    """The first step: is this TLS, and is it for us? Nothing is consumed, so that the answer can be acted on either
    way."""

    cdef void peeked(self, Transport transport, const char* data, Py_ssize_t size, bint eof):
        cdef sniff.Hello hello
        cdef InboundConnection connection = self.connection
        cdef sniff.Verdict verdict = sniff.sniff_tls(<const unsigned char*>data, size, &hello)
        if verdict == sniff.UNDECIDED:
            if size == 0 and eof:
                self.stop()
                transport.close()
            elif eof or size >= MAX_HELLO:
                self.stop()
                connection.plaintext()
            return
        self.stop()
        if verdict == sniff.IS_OPAQUE:
            connection.plaintext()
            return
        name = hello.server_name[:hello.server_name_size].decode("ascii", "replace") if hello.server_name_size else ""
        if name == connection.inbound.server_name and connection.inbound.tls.server is not None:
            connection.terminate()
        else:
            connection.pass_through(name)

    cdef void closed(self, object reason):
        self.stop()

    cdef void timed_out(self):
        cdef InboundConnection connection = self.connection
        self.stop()
        if connection.port.is_opaque:
            connection.plaintext()
            return
        connection.inbound.registry.event(
            "tcp_detect_timeout_total", (("direction", "inbound"), ("port", str(connection.port.address.port)))
        )
        connection.inbound.refuse(
            connection.transport, connection.port, "tls detection timeout",
            "the client sent nothing; if the server speaks first on this port, mark it opaque with "
            "config.linkerd.io/opaque-ports",
        )

    cdef void stop(self):
        self.connection.inbound.reactor.disarm(self.timer)
        self.timer.peek = None


cdef class HandshakeTimer(Timer):
    cdef AwaitTLS waiting

    cdef void expired(self):
        cdef InboundConnection connection = self.waiting.connection
        self.waiting = None
        connection.inbound.refuse(connection.transport, connection.port, "tls handshake timeout", "")


cdef class AwaitTLS(Protocol):
    """Our SNI: terminate mutual TLS. A client without a good certificate gets no further."""

    cdef void connected(self, Transport transport):
        self.stop_timer()
        self.connection.secured()

    cdef void closed(self, object reason):
        cdef InboundConnection connection = self.connection
        cdef Inbound inbound = connection.inbound
        self.stop_timer()
        cause = getattr(reason, "cause", "i/o")
        inbound.registry.event(
            "inbound_tcp_errors_total", (("error", cause),) + target_labels(connection.port.address)
        )
        inbound.log.limited(
            f"{cause}:{connection.port.address.port}", "inbound TLS refused", client=connection.peer.text,
            port=connection.port.address.port, error=cause, detail=str(reason),
        )

    cdef void stop_timer(self):
        self.connection.inbound.reactor.disarm(self.timer)
        (<HandshakeTimer>self.timer).waiting = None


cdef class InboundConnection(Detected):
    """What is known of one connection, and the transitions between its steps."""

    # Steps

    cdef void terminate(self):
        cdef AwaitTLS waiting = AwaitTLS()
        cdef HandshakeTimer timer = HandshakeTimer()
        waiting.connection = self
        waiting.timer = timer
        timer.waiting = waiting
        self.transport.protocol = waiting
        self.inbound.reactor.arm(timer, <int64_t>(<double>self.inbound.settings.inbound_detect_timeout * 1e9))
        self.transport.start_tls_server(self.inbound.tls.server, self.port.requires_certificate)

    cdef void secured(self):
        """Mutual TLS stands. A Tulle peer has said in ALPN what it speaks; anyone else is listened to."""
        cdef str alpn = self.transport.alpn
        if self.transport.peer_identity is not None:
            try:
                parse_dns_name(
                    self.transport.peer_identity, self.inbound.settings.mesh_namespace,
                    self.inbound.settings.trust_domain,
                )
            except InvalidNameError as error:
                # A good chain is not enough: with a company's CA as anchor, every certificate of the company has one.
                self.inbound.refuse(self.transport, self.port, "identity_foreign", error)
                return
            self.tls_labels = (("tls", "true"), ("client_id", self.transport.peer_identity))
        else:
            self.tls_labels = (("tls", "true"), ("client_id", ""))
        if alpn is not None and alpn.startswith(ALPN_OPAQUE):
            if "/" in alpn[len(ALPN_OPAQUE):]:
                self.redirect_to_port(alpn)
                return
            self.forward_opaque(b"", 0)
        elif self.port.address.port == INBOUND_PORT:
            self.inbound.refuse(
                self.transport, self.port, "gateway loop", "the inbound port was dialled without a target"
            )
        elif alpn is not None and alpn == ALPN_HTTP1 and not self.port.is_opaque:
            self.serve_http1(b"", 0)
        elif alpn is not None and alpn == ALPN_HTTP2 and not self.port.is_opaque:
            self.serve_http2(b"", 0)
        elif self.port.is_opaque:
            self.forward_opaque(b"", 0)
        else:
            self.detect()

    cdef void redirect_to_port(self, str alpn):
        """The inbound port was dialled, with the application's port in ALPN (see proxy.stack.opaque)."""
        cdef int number = opaque_port(alpn)
        if number == 0 or number in self.inbound.own_ports:
            self.inbound.refuse(self.transport, self.port, "gateway loop", f"ALPN {alpn!r} names no application port")
            return
        self.port = self.inbound.port_for(Address(self.port.address.ip, number))
        self.inbound.registry.event(
            "inbound_tcp_transport_header_connections_total",
            (("session_protocol", ""), ("target_port", str(number)), ("target_name", ""),
             ("client_id", self.transport.peer_identity or "")),
        )
        self.forward_opaque(b"", 0)

    cdef void pass_through(self, str name):
        """TLS that is not ours to end: the bytes go on untouched, and are counted under their SNI."""
        if self.port.address.port == INBOUND_PORT:
            # Passed on to its original destination it would come back here, for ever.
            self.inbound.refuse(
                self.transport, self.port, "gateway loop", "TLS for another name was sent to the inbound port"
            )
            return
        names = self.inbound.server_names
        if len(names) < MAX_SERVER_NAMES:
            names.add(name)
        self.tls_labels = (("tls", "opaque"), ("sni", name if name in names else "other"))
        self.transport.start_plain()
        self.forward_opaque(b"", 0)

    cdef void plaintext(self):
        reason = "port_skipped" if self.port.is_opaque else "no_tls_from_remote"
        self.tls_labels = (("tls", "no_identity"), ("no_tls_reason", reason))
        if self.port.address.port == INBOUND_PORT:
            self.inbound.refuse(self.transport, self.port, "gateway loop", "plaintext to the inbound port")
            return
        self.transport.start_plain()
        if self.port.is_opaque:
            self.forward_opaque(b"", 0)
            return
        self.detect()

    cdef void detect(self):
        cdef DetectHTTP detect
        cdef Port port = self.port
        if self.inbound.serves_http1_only:
            port.detections = DetectSeries(())
        elif port.detections is None or port.detections.is_dropped:
            port.detections = <DetectSeries>self.inbound.registry.inbound_detections.get(self.server_labels())
        detect = DetectHTTP(self.inbound.reactor, self, port.detections)
        detect.start(self.transport, self.inbound.settings.inbound_detect_timeout)

    # Detected

    cdef void detected(self, Transport transport, sniff.Verdict verdict, const char* data, Py_ssize_t size):
        if verdict == sniff.IS_HTTP1:
            self.serve_http1(data, size)
        elif verdict == sniff.IS_HTTP2:
            self.serve_http2(data, size)
        else:
            self.forward_opaque(data, size)

    cdef void detection_timed_out(self, Transport transport, const char* data, Py_ssize_t size):
        self.inbound.registry.event(
            "tcp_detect_timeout_total", (("direction", "inbound"), ("port", str(self.port.address.port)))
        )
        self.inbound.log.limited(
            f"detect:{self.port.address.port}", "inbound protocol detection timed out; mark the port opaque with "
            "config.linkerd.io/opaque-ports", port=self.port.address.port, client=self.peer.text,
        )
        self.forward_opaque(data, size)

    cdef void detection_ended(self, Transport transport, object reason):
        pass

    # Ends

    cdef tuple server_labels(self):
        policy = self.inbound.settings.inbound_default_policy
        return (
            ("srv_group", ""), ("srv_kind", "default"), ("srv_name", policy), ("srv_port", str(self.port.address.port))
        )

    cdef object authorization(self):
        """An Authorization, or the sentence of the refusal."""
        cdef Transport transport = self.transport
        settings = self.inbound.settings
        policy = settings.inbound_default_policy
        if not self.port.requires_certificate and transport.is_tls:
            return Authorization("default", "tls-unauthenticated")
        try:
            return authorize(
                policy, settings.cluster_networks, ClientInfo(self.peer.ip, transport.peer_identity or "")
            )
        except Unauthorized as refusal:
            return str(refusal)

    cdef void count_connection(self):
        if self.inbound.serves_http1_only:
            return
        self.transport.set_series(
            <TCPSeries>self.inbound.registry.connections.get(
                (("direction", "inbound"), ("peer", "src")) + target_labels(self.port.address) + self.tls_labels
                + self.server_labels()
            )
        )

    cdef void forward_opaque(self, const char* data, Py_ssize_t size):
        cdef OpaqueConnect connect
        if self.inbound.serves_http1_only:
            self.inbound.refuse(self.transport, self.port, "not HTTP/1", "only HTTP/1.1 is served here")
            return
        authorization = self.authorization()
        self.count_connection()
        labels = target_labels(self.port.address) + self.server_labels()
        if isinstance(authorization, str):
            self.inbound.registry.event("inbound_tcp_authz_deny_total", labels + self.tls_labels)
            self.inbound.log.limited(
                f"authz:{self.port.address.port}", "inbound connection denied", client=self.peer.text,
                identity=self.transport.peer_identity or "", port=self.port.address.port, error=authorization,
            )
            self.transport.abort()
            return
        self.inbound.registry.event(
            "inbound_tcp_authz_allow_total", labels + authorization_named(authorization.name) + self.tls_labels
        )
        connect = OpaqueConnect(self.port.balancer, self.inbound.connections, self.opaque_failed)
        connect.start(self.transport, data, size)

    def opaque_failed(self, error):
        self.inbound.registry.event(
            "inbound_tcp_errors_total", (("error", error),) + target_labels(self.port.address)
        )
        self.inbound.log.limited(
            f"forward:{self.port.address.port}", "the application did not take a connection",
            target=self.port.address.text, error=error,
        )

    cdef void serve_http1(self, const char* data, Py_ssize_t size):
        cdef HTTP1Server server = HTTP1Server(self.inbound.router_for(self), self.inbound.connections)
        self.count_connection()
        server.start(self.transport)
        if size > 0 and server.transport is not None:
            server.data_received(data, size)

    cdef void serve_http2(self, const char* data, Py_ssize_t size):
        cdef HTTP2Server server
        if self.inbound.serves_http1_only:
            self.forward_opaque(data, size)
            return
        server = HTTP2Server(self.inbound.router_for(self), self.inbound.connections)
        self.count_connection()
        server.start(self.transport)
        if size > 0:
            server.received(data, size)


cdef class InboundRouter(Router):
    """Authorises each request of one connection, and chooses what it is counted under."""

    def __init__(self, InboundConnection connection not None):
        cdef Transport transport = connection.transport
        self.connection = connection
        self.dispatcher = connection.port.balancer
        self.authorization = connection.authorization()
        self.shows_errors = transport.is_tls and transport.peer_identity is not None
        self.strips_client_id = True
        self.stall_ns = connection.inbound.stall_ns
        if transport.peer_identity is not None:
            self.client_id = transport.peer_identity.encode()
        else:
            self.client_id = b""
        if connection.inbound.access_log is not None:
            self.access_log = connection.inbound.access_log
            self.client = connection.peer.text
            self.identity = transport.peer_identity

    cdef RouteCounts counts_for(self, str route, str authorization):
        cdef InboundConnection connection = self.connection
        return RouteCounts(
            connection.inbound.registry, target_labels(connection.port.address), connection.tls_labels,
            connection.server_labels(), route, authorization,
        )

    cdef Refusal route(self, Exchange exchange):
        if len(self.connection.port.probe_paths) and self.is_probe(exchange):
            if self.probe_counts is None:
                self.probe_counts = self.counts_for("probe", "probe")
            self.probe_counts.count(exchange)
            return None
        if isinstance(self.authorization, str):
            return Refusal(403, self.authorization)
        if self.counts is None:
            self.counts = self.counts_for("default", self.authorization.name)
        self.counts.count(exchange)
        if not self.connection.inbound.flight.admits(exchange):
            return Refusal(503, "loadshed", True)
        return None

    cdef bint is_probe(self, Exchange exchange):
        """A plaintext GET of a path that a container declares as its probe: the kubelet, which has no mesh identity."""
        cdef bytes target
        if exchange.method != http1.METHOD_GET or exchange.path == NULL or self.connection.transport.is_tls:
            return False
        target = exchange.path[:exchange.path_size]
        return target.decode("latin-1") in self.connection.port.probe_paths

    cdef void refused(self, int status, str error):
        cdef InboundConnection connection = self.connection
        if status == 403:
            connection.inbound.registry.event(
                "inbound_http_authz_deny_total",
                target_labels(connection.port.address) + connection.server_labels() + route_named("default")
                + connection.tls_labels,
            )
        self.tell("inbound request refused", status, "unauthorized" if status == 403 else error, error)

    cdef void broken_off(self, int status, str error):
        self.tell("inbound stream reset", status, error, error)

    cdef void tell(self, str event, int status, str cause, str error):
        cdef InboundConnection connection = self.connection
        connection.inbound.registry.event(
            "inbound_http_errors_total",
            (("error", cause), ("status_code", str(status))) + target_labels(connection.port.address)
            + connection.tls_labels + connection.server_labels(),
        )
        connection.inbound.log.limited(
            f"{error}:{connection.port.address.port}", event, client=connection.peer.text,
            port=connection.port.address.port, status=status, error=error,
        )

    cdef void ended(self, str error):
        """A connection of many requests is over; what was wrong with it, if anything was, is counted."""
        cdef InboundConnection connection = self.connection
        if error == "connection closed" or error == "i/o":
            return
        connection.inbound.registry.event(
            "inbound_tcp_errors_total", (("error", error),) + target_labels(connection.port.address)
        )
        connection.inbound.log.limited(
            f"{error}:{connection.port.address.port}", "inbound connection ended", client=connection.peer.text,
            port=connection.port.address.port, error=error,
        )
