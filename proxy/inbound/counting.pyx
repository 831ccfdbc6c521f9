"""What the requests of one inbound connection are counted as, by the route that let them in. Decides nothing.

Series are looked up when a connection has its first request under a route, and again when they were dropped as idle
meanwhile: a request only increments.
"""
from proxy.stack.exchange cimport Exchange
from proxy.telemetry.counters cimport EventSeries, RequestSeries
from proxy.telemetry.streams cimport StreamSeries


cdef class RouteCounts:
    """`target`, `tls` and `server` are labels of the connection, `route` and `authorization` names of the default
    policy's."""

    def __init__(self, registry, tuple target, tuple tls, tuple server, str route, str authorization):
        cdef tuple route_labels = route_named(route)
        cdef tuple authorized = authorization_named(authorization)
        self.registry = registry
        self.requests_labels = (("direction", "inbound"),) + target + tls + server + route_labels + authorized
        # The same labels in Linkerd's order for this family.
        self.allowed_labels = target + server + route_labels + authorized + tls
        parent = tuple([(f"parent_{name[4:]}", value) for name, value in server])
        self.streams_labels = parent + route_labels

    cdef void count(self, Exchange exchange):
        """A request is let in."""
        cdef StreamSeries streams
        if self.requests is None or self.requests.is_dropped:
            self.requests = <RequestSeries>self.registry.requests.get(self.requests_labels)
        if self.allowed is None or self.allowed.is_dropped:
            self.allowed = <EventSeries>self.registry.inbound_allowed.get(self.allowed_labels)
        streams = self.grpc if exchange.is_grpc else self.http
        if streams is None or streams.is_dropped:
            if exchange.is_grpc:
                streams = self.grpc = <StreamSeries>self.registry.inbound_grpc_routes.get(self.streams_labels)
            else:
                streams = self.http = <StreamSeries>self.registry.inbound_http_routes.get(self.streams_labels)
        self.allowed.add(exchange.began_ns, 1)
        exchange.counted_as = self.requests
        exchange.routed(streams, None)


def route_named(str route):
    """The labels of a route of the default policy."""
    return (("route_group", ""), ("route_kind", "default"), ("route_name", route))


def authorization_named(str name):
    """The labels of what lets a client in."""
    return (("authz_group", ""), ("authz_kind", "default"), ("authz_name", name))
