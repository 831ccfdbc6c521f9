"""What stands behind the addresses that the application dials: one watch per original destination, shared by its
connections.

Fail static: what was learnt stays in use however long the control plane is away; a destination is given back only
when it has been idle and the watch can be made again.
"""
from libc.stdint cimport int64_t

from proxy.io.address cimport Address
from proxy.io.reactor cimport Reactor, Timer
from proxy.stack.balance cimport Balancer
from proxy.stack.endpoint cimport Endpoint
from proxy.stack.pool cimport Limits
from proxy.telemetry.balancing cimport BalancerSeries
from proxy.telemetry.counters cimport EventSeries, RequestSeries, TCPSeries
from proxy.telemetry.streams cimport DetectSeries, StreamSeries
from proxy.tls.contexts cimport TLSContexts

from proxy.io.address import parse_address
from proxy.outbound.references import references
from proxy.outbound.terms import breaking, penalty, terms

# Seconds a connection waits for the first answer about its destination; then HTTP requests queue (and fail fast)
# instead.
cdef double DISCOVERY_WAIT = 3.0


cdef class Waiter:
    cdef void discovered(self, Destination destination):
        pass


cdef class WaitTimer(Timer):
    cdef void expired(self):
        self.destination.tell()


cdef class Destination:
    """Consumer of one discovery watch: `changed` and `failed` are its callbacks."""

    def __init__(self, Destinations owner not None, str address not None):
        self.owner = owner
        self.address = address
        self.waiters = []
        self.labels = ()
        self.authority = ""
        self.references = references("unknown", "", ())
        self.balancer = Balancer(owner.reactor, owner.tls, owner.limits, self.connect_failed)
        self.timer = WaitTimer()
        self.timer.destination = self
        self.watch = owner.discovery.watch(address, self)

    def changed(self, target, upserted, removed):
        """Called by discovery with what is new; the first call has everything."""
        was_opaque = self.is_opaque
        self.is_opaque = target.is_opaque
        self.protocol_series = None
        self.authority = target.authority
        self.labels = tuple((f"dst_{name}", value) for name, value in target.labels)
        named = references(target.kind, target.authority, target.labels)
        if named != self.references:
            self.references = named
            self.http_route = self.http_backend = self.grpc_route = self.grpc_backend = self.detect_series = None
            if self.balancer.counted is not None:
                self.balancer.count_requests(None)
                self.balances_requests()
            if self.balancer.opaque_counted is not None:
                self.balancer.count_connections(None)
                self.balances_connections()
        self.heed(target)
        endpoints = []
        if target.kind == "external":
            endpoints.append(self.endpoint(self.address, None, (), "not_provided_by_service_discovery", False))
            removed = [known.address.text for known in self.balancer.endpoints if known.address.text != self.address]
        else:
            for item in upserted:
                own = item.host in self.owner.own_addresses
                endpoints.append(
                    self.endpoint(
                        item.address, item.identity if item.identity and not own else None,
                        tuple((f"dst_{name}", value) for name, value in item.labels),
                        "loopback" if own else "not_provided_by_service_discovery", item.is_opaque,
                    )
                )
                if item.is_opaque and target.kind == "pod":
                    self.is_opaque = True
        self.balancer.update(endpoints, removed)
        if not self.is_known or was_opaque != self.is_opaque:
            self.owner.log.debug("destination known", address=self.address, kind=target.kind, opaque=self.is_opaque)
        self.is_known = True
        self.tell()

    cdef void heed(self, object target):
        """Do as the Service's annotations say. What did not change keeps its breakers and its budget."""
        asked = (target.balancing, target.retries, target.time_limits)
        if asked == self.asked:
            return
        self.asked = asked
        try:
            self.balancer.treat(breaking(target.balancing), penalty(target.balancing))
            self.terms = terms(target)
        except ValueError as error:
            self.balancer.treat(None, None)
            self.terms = None
            self.owner.log.limited(
                "terms", "breakers, retries and time limits that cannot be are not used", address=self.address,
                error=str(error),
            )

    def failed(self, status):
        """Called by discovery when it cannot say, before it ever could; it goes on trying."""
        self.owner.log.limited(
            "discovery", "discovery failed; requests to unknown destinations wait", address=self.address,
            error=str(status),
        )

    cdef Endpoint endpoint(self, str address, identity, tuple labels, str no_tls_reason, bint is_opaque):
        cdef Endpoint endpoint = Endpoint(parse_address(address), identity, labels, no_tls_reason, is_opaque)
        tls = (("tls", "true"), ("server_id", identity)) if identity else (
            ("tls", "no_identity"), ("no_tls_reason", no_tls_reason)
        )
        where = (
            ("target_addr", endpoint.address.text), ("target_ip", endpoint.address.ip),
            ("target_port", str(endpoint.address.port)),
        )
        # An endpoint's own label wins over its service's (namespace), so that no name is given twice.
        own = {name for name, _ in labels}
        dst = tuple(pair for pair in self.labels if pair[0] not in own) + labels
        registry = self.owner.registry
        endpoint.count_under(
            <RequestSeries>registry.requests.get(
                (("direction", "outbound"), ("authority", self.authority)) + where + tls + dst
            ),
            <TCPSeries>registry.connections.get(
                (("direction", "outbound"), ("peer", "dst"), ("authority", self.authority)) + where + tls + dst
            ),
        )
        return endpoint

    def connect_failed(self, Endpoint endpoint, reason):
        cause = getattr(reason, "cause", "connect timeout" if isinstance(reason, TimeoutError) else "connect error")
        self.owner.registry.event(
            "outbound_tcp_errors_total",
            (("error", cause), ("target_addr", endpoint.address.text), ("server_id", endpoint.identity or "")),
        )
        self.owner.log.limited(
            f"connect:{endpoint.address.text}", "cannot connect", endpoint=endpoint.address.text,
            server_id=endpoint.identity or "", error=cause, detail=str(reason),
        )

    # What its connections and streams are counted as: asked for each time, because what was idle may be dropped.

    cdef StreamSeries routes(self, bint is_grpc):
        cdef StreamSeries found = self.grpc_route if is_grpc else self.http_route
        if found is None or found.is_dropped:
            registry = self.owner.registry
            table = registry.outbound_grpc_routes if is_grpc else registry.outbound_http_routes
            found = <StreamSeries>table.get(self.references.route)
            if is_grpc:
                self.grpc_route = found
            else:
                self.http_route = found
        return found

    cdef StreamSeries backends(self, bint is_grpc):
        cdef StreamSeries found = self.grpc_backend if is_grpc else self.http_backend
        if found is None or found.is_dropped:
            registry = self.owner.registry
            table = registry.outbound_grpc_backends if is_grpc else registry.outbound_http_backends
            found = <StreamSeries>table.get(self.references.backend)
            if is_grpc:
                self.grpc_backend = found
            else:
                self.http_backend = found
        return found

    cdef void balances_requests(self):
        """HTTP goes there: its balancer is counted as one of requests."""
        if self.balancer.counted is None:
            self.balancer.count_requests(
                <BalancerSeries>self.owner.registry.http_balancers.get(self.references.balancer)
            )

    cdef void balances_connections(self):
        """Opaque connections go there."""
        if self.balancer.opaque_counted is None:
            self.balancer.count_connections(
                <BalancerSeries>self.owner.registry.tcp_balancers.get(self.references.balancer)
            )

    cdef DetectSeries detections(self):
        if self.detect_series is None or self.detect_series.is_dropped:
            self.detect_series = <DetectSeries>self.owner.registry.outbound_detections.get(self.references.parent)
        return self.detect_series

    cdef TCPSeries connections(self, Address original):
        """Of the application to this proxy; `original` is what it dialled."""
        if self.accepted_series is None or self.accepted_series.is_dropped:
            self.accepted_series = <TCPSeries>self.owner.registry.connections.get(
                (("direction", "outbound"), ("peer", "src"), ("target_addr", original.text),
                 ("target_ip", original.ip), ("target_port", str(original.port)),
                 ("tls", "no_identity"), ("no_tls_reason", "loopback"))
            )
        return self.accepted_series

    cdef EventSeries protocols(self):
        if self.protocol_series is None or self.protocol_series.is_dropped:
            self.protocol_series = <EventSeries>self.owner.registry.event_series(
                "outbound_tcp_protocol_connections_total",
                (("protocol", "opaq" if self.is_opaque else "detect"),) + self.references.parent,
            )
        return self.protocol_series

    cdef void wait(self, Waiter waiter):
        """Have `waiter.discovered` called as soon as the destination is known, or after a while without an answer."""
        self.users += 1
        if self.is_known:
            waiter.discovered(self)
            return
        self.waiters.append(waiter)
        if self.timer.slot < 0:
            self.owner.reactor.arm(self.timer, <int64_t>(DISCOVERY_WAIT * 1e9))

    cdef void release(self):
        self.users -= 1
        self.idle_since_ns = self.owner.reactor.now_ns

    cdef void tell(self):
        cdef list waiters = self.waiters
        self.owner.reactor.disarm(self.timer)
        self.waiters = []
        for waiter in waiters:
            (<Waiter>waiter).discovered(self)

    def close(self):
        self.watch.close()
        self.balancer.close()

    def __repr__(self):
        return f"<Destination {self.address} {self.authority or '-'} users={self.users} {self.balancer!r}>"


cdef class Destinations:
    """Every destination in use. `discovery` is proxy.control.destination.Destination."""

    def __init__(self, Reactor reactor not None, TLSContexts tls not None, settings, registry, log, discovery):
        self.reactor = reactor
        self.tls = tls
        self.settings = settings
        self.registry = registry
        self.log = log
        self.discovery = discovery
        self.known = {}
        self.own_addresses = frozenset(str(ip) for ip in settings.pod_ips)
        self.limits = Limits(
            settings.outbound_connect_timeout, settings.outbound_failfast_timeout, settings.http1_pool_idle_timeout,
            peer_timeout=settings.peer_timeout,
        )

    cdef Destination get(self, str address):
        found = self.known.get(address)
        if found is None:
            found = self.known[address] = Destination(self, address)
        return <Destination>found

    def drop_idle(self, double idle_seconds):
        """Give back what nobody has used for that long; called now and then by the composition root."""
        cdef Destination destination
        cdef int64_t limit = self.reactor.time_ns() - <int64_t>(idle_seconds * 1e9)
        if not self.discovery.is_connected:
            return
        for address, item in list(self.known.items()):
            destination = <Destination>item
            if destination.users == 0 and destination.idle_since_ns < limit:
                destination.close()
                del self.known[address]
                self.log.debug("destination given back", address=address)
