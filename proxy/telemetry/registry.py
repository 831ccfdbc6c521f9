"""Every series of the process, by family and within limits. Pure but for the clock that rare events carry; how series
are shown is in `families`.

What a peer can vary is bounded: see CounterTable.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from proxy.telemetry import families
from proxy.telemetry.balancing import BalancerSeries
from proxy.telemetry.counters import CounterTable, EventSeries, RequestSeries, TCPSeries
from proxy.telemetry.exposition import Family
from proxy.telemetry.streams import DetectSeries, StreamSeries

Labels = tuple[tuple[str, str], ...]

MAX_INBOUND: Final = 2_048
"""Series of one inbound kind: whoever can reach the pod can make them, by scanning its ports."""
MAX_SERIES: Final = 10_000
"""Series of one kind and direction else: the application makes them, by whom it calls."""
MAX_EVENTS: Final = 1_000
"""Series of one family of rare events."""
KEPT_EVENTS: Final = 100
"""Series of rare events that a family may have without idle ones being dropped: an error is read about days later."""
MAX_CONTROL: Final = 16
"""Services of the control plane."""

EVENT_HELP: Final = {
    "inbound_http_errors_total": "Responses made by the proxy for requests from other workloads, by cause.",
    "inbound_tcp_errors_total": "Inbound connections the proxy ended, by cause.",
    "outbound_http_errors_total": "Responses made by the proxy for requests of this workload, by cause.",
    "outbound_tcp_errors_total": "Outbound connections the proxy ended or could not make, by cause.",
    "inbound_http_authz_deny_total": "Requests that the inbound policy refused.",
    "inbound_tcp_authz_allow_total": "Connections that the inbound policy let in.",
    "inbound_tcp_authz_deny_total": "Connections that the inbound policy refused.",
    "inbound_tcp_transport_header_connections_total": "Opaque connections that named their port to the inbound port.",
    "tcp_detect_timeout_total": "Connections whose protocol could not be told in time, by port.",
    "outbound_tcp_protocol_connections_total": "Outbound TCP connections by protocol configuration.",
    "outbound_tcp_route_open_total": "Opaque connections that were begun.",
    "outbound_tcp_route_close_total": "Opaque connections that ended, by cause.",
    "control_dns_resolutions_total": "Names of the control plane that were looked up.",
}
"""Rare events: family -> sentence. A family outside this table is a programming error."""


class Registry:
    """The counters of one proxy. The hot path holds series of it; a scrape walks them."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._tables: dict[str, CounterTable] = {}

        def table(family: str, kind: type[Any], limit: int = MAX_SERIES) -> CounterTable:
            made = self._tables[family] = CounterTable(kind, limit)
            return made

        self.requests = table("request_total", RequestSeries)
        self.connections = table("tcp_open_total", TCPSeries)
        for each in (self.requests, self.connections):
            each.limits["inbound"] = MAX_INBOUND
        self.control = table("control_request_total", RequestSeries, MAX_CONTROL)
        self.inbound_allowed = table("inbound_http_authz_allow_total", EventSeries, MAX_INBOUND)
        self.inbound_http_routes = table("inbound_http_requests_total", StreamSeries, MAX_INBOUND)
        self.inbound_grpc_routes = table("inbound_grpc_requests_total", StreamSeries, MAX_INBOUND)
        self.outbound_http_routes = table("outbound_http_route_request_statuses_total", StreamSeries)
        self.outbound_grpc_routes = table("outbound_grpc_route_request_statuses_total", StreamSeries)
        self.outbound_http_backends = table("outbound_http_route_backend_requests_total", StreamSeries)
        self.outbound_grpc_backends = table("outbound_grpc_route_backend_requests_total", StreamSeries)
        self.http_balancers = table("outbound_http_balancer_endpoints", BalancerSeries)
        self.tcp_balancers = table("outbound_tcp_balancer_endpoints", BalancerSeries)
        self.inbound_detections = table("inbound_tcp_detect_http_results_total", DetectSeries, MAX_INBOUND)
        self.outbound_detections = table("outbound_tcp_detect_http_results_total", DetectSeries)
        self.events: dict[str, CounterTable] = {}

    def event(self, family: str, labels: Labels) -> None:
        """Count one rare event; raises KeyError for a family that is not in the table."""
        self.event_series(family, labels).add(self._clock())

    def event_series(self, family: str, labels: Labels) -> EventSeries:
        """What such events are counted in, for who meets them often; to be asked for again once it was dropped."""
        EVENT_HELP[family]
        table = self.events.get(family)
        if table is None:
            table = self.events[family] = CounterTable(EventSeries, MAX_EVENTS)
        return cast(EventSeries, table.get(labels))

    def control_series(self, address: str, identity: str) -> RequestSeries:
        """What calls of one service of the control plane count as, for good. `identity` is what it must prove; none is
        asked for inside the pod."""
        tls = (("tls", "true"), ("server_id", identity)) if identity else (
            ("tls", "no_identity"), ("no_tls_reason", "loopback")
        )  # fmt: skip
        series: Any = self.control.get((("addr", address), *tls))
        series.is_pinned = True
        return cast(RequestSeries, series)

    def drop_idle(self, now_ns: int, retain_ns: int) -> int:
        """Forget series that nothing touched for `retain_ns`; returns how many. Open connections, known endpoints and
        live balancers keep theirs."""
        crowded = (table for table in self.events.values() if len(table.series) > KEPT_EVENTS)
        return sum(table.drop_idle(now_ns, retain_ns) for table in (*self._tables.values(), *crowded))

    def families(self) -> Iterator[Family]:
        """Everything counted, lazily: a scrape yields to traffic between batches of series."""
        yield from families.requests("", self.requests)
        yield from families.connections(self.connections)
        for family, sentence in EVENT_HELP.items():
            if family in self.events:
                yield families.counts(family, sentence, self.events[family], lambda s: s.count)
        folded = [
            (f'family="{family}"', table.overflowed)
            for family, table in (*self._tables.items(), *self.events.items())
            if table.overflowed
        ]
        yield Family("tulle_metrics_overflow_total", "counter", "Label sets counted as `other`, by family.", folded)
        yield from families.requests("control_", self.control)
        yield families.counts(
            "inbound_http_authz_allow_total", "Requests that the inbound policy let in.", self.inbound_allowed,
            lambda s: s.count,
        )  # fmt: skip
        yield from families.inbound_routes("inbound_http", self.inbound_http_routes)
        yield from families.inbound_routes("inbound_grpc", self.inbound_grpc_routes)
        yield from families.outbound_routes("outbound_http_route", self.outbound_http_routes)
        yield from families.outbound_backends("outbound_http_route_backend", self.outbound_http_backends)
        yield from families.outbound_routes("outbound_grpc_route", self.outbound_grpc_routes)
        yield from families.outbound_backends("outbound_grpc_route_backend", self.outbound_grpc_backends)
        yield from families.balancers("outbound_http_balancer", self.http_balancers)
        yield from families.balancers("outbound_tcp_balancer", self.tcp_balancers)
        yield from families.detections("inbound_tcp_detect_http", self.inbound_detections)
        yield from families.detections("outbound_tcp_detect_http", self.outbound_detections)
