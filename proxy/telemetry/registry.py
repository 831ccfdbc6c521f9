"""Every series of the process, by family, and how they are shown. Pure but for the clock that rare events carry.

The families, labels and buckets are Linkerd's, both generations: request_total, response_total, response_latency_ms and
tcp_*, because that is what its users' dashboards read, then those by route and backend. What a peer can vary is
bounded: see CounterTable.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from proxy.telemetry.counters import LATENCY_BOUNDS_MS, CounterTable, EventSeries, RequestSeries, Series, TCPSeries
from proxy.telemetry.exposition import Family, Histogram, escaped, labels_text
from proxy.telemetry.streams import DETECT_BOUNDS, DURATION_BOUNDS, FRAME_BOUNDS, DetectSeries, StreamSeries

Labels = tuple[tuple[str, str], ...]

MAX_INBOUND: Final = 2_048
"""Series of one inbound kind: whoever can reach the pod can make them, by scanning its ports."""
MAX_SERIES: Final = 10_000
"""Series of one kind and direction else: the application makes them, by whom it calls."""
MAX_EVENTS: Final = 1_000
"""Series of one family of rare events."""
KEPT_EVENTS: Final = 100
"""Series of rare events that a family may have without idle ones being dropped: an error is read about days later."""

EVENT_HELP: Final = {
    "inbound_http_errors_total": "Responses made by the proxy for requests from other workloads, by cause.",
    "inbound_tcp_errors_total": "Inbound connections the proxy ended, by cause.",
    "outbound_http_errors_total": "Responses made by the proxy for requests of this workload, by cause.",
    "outbound_tcp_errors_total": "Outbound connections the proxy ended or could not make, by cause.",
    "inbound_http_authz_allow_total": "Requests that the inbound policy let in.",
    "inbound_http_authz_deny_total": "Requests that the inbound policy refused.",
    "inbound_tcp_authz_allow_total": "Connections that the inbound policy let in.",
    "inbound_tcp_authz_deny_total": "Connections that the inbound policy refused.",
    "tcp_detect_timeout_total": "Connections whose protocol could not be told in time, by port.",
    "outbound_tcp_protocol_connections_total": "Outbound TCP connections by protocol configuration.",
    "outbound_tcp_route_open_total": "Opaque connections that were begun.",
    "outbound_tcp_route_close_total": "Opaque connections that ended, by cause.",
}
"""Rare events: family -> sentence. A family outside this table is a programming error."""

# How few bounds a family has out of DURATION_BOUNDS.
COARSE: Final = (0.05, 0.5, 1.0, 10.0)


class Registry:
    """The counters of one proxy. The hot path holds series of it; a scrape walks them."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self.requests = CounterTable(RequestSeries, MAX_SERIES)
        self.connections = CounterTable(TCPSeries, MAX_SERIES)
        self.inbound_routes = CounterTable(StreamSeries, MAX_INBOUND)
        self.outbound_routes = CounterTable(StreamSeries, MAX_SERIES)
        self.outbound_backends = CounterTable(StreamSeries, MAX_SERIES)
        self.inbound_detections = CounterTable(DetectSeries, MAX_INBOUND)
        self.outbound_detections = CounterTable(DetectSeries, MAX_SERIES)
        for table in (self.requests, self.connections):
            table.limits["inbound"] = MAX_INBOUND
        self.events: dict[str, CounterTable] = {}
        self._tables: dict[str, CounterTable] = {
            "request_total": self.requests,
            "tcp_open_total": self.connections,
            "inbound_http_requests_total": self.inbound_routes,
            "outbound_http_route_request_statuses_total": self.outbound_routes,
            "outbound_http_route_backend_requests_total": self.outbound_backends,
            "inbound_tcp_detect_http_results_total": self.inbound_detections,
            "outbound_tcp_detect_http_results_total": self.outbound_detections,
        }

    def event(self, family: str, labels: Labels) -> None:
        """Count one rare event; raises KeyError for a family that is not in the table."""
        EVENT_HELP[family]
        table = self.events.get(family)
        if table is None:
            table = self.events[family] = CounterTable(EventSeries, MAX_EVENTS)
        series: Any = table.get(labels)
        series.add(self._clock())

    def drop_idle(self, now_ns: int, retain_ns: int) -> int:
        """Forget series that nothing touched for `retain_ns`; returns how many. Open connections and known endpoints
        keep theirs."""
        crowded = (table for table in self.events.values() if len(table.series) > KEPT_EVENTS)
        return sum(table.drop_idle(now_ns, retain_ns) for table in (*self._tables.values(), *crowded))

    def families(self) -> Iterator[Family]:
        """Everything counted, lazily: a scrape yields to traffic between batches of series."""
        yield from self._requests()
        yield from self._connections()
        for family, sentence in EVENT_HELP.items():
            if family in self.events:
                yield _counter(family, sentence, self.events[family], lambda s: s.count)
        folded = [
            (f'family="{family}"', table.overflowed)
            for family, table in (*self._tables.items(), *self.events.items())
            if table.overflowed
        ]
        yield Family("tulle_metrics_overflow_total", "counter", "Label sets counted as `other`, by family.", folded)
        yield from self._inbound_routes()
        yield from self._outbound_routes()
        for direction, table in (("inbound", self.inbound_detections), ("outbound", self.outbound_detections)):
            name = f"{direction}_tcp_detect_http"
            yield Family(f"{name}_results_total", "counter", "Protocol detection results.", _detected(table))
            sentence = "Time taken for protocol detection."
            yield _histogram(f"{name}_duration_seconds", sentence, table, DETECT_BOUNDS, lambda s: s.durations())

    # The older generation

    def _requests(self) -> Iterator[Family]:
        yield _counter("request_total", "Requests sent on.", self.requests, lambda s: s.requests)
        sentence = "Milliseconds from request to first byte of the body."
        yield Family("response_latency_ms", "histogram", sentence, self._latencies())
        yield Family("response_total", "counter", "Responses, at the end of their streams.", self._responses())

    def _responses(self) -> Iterator[tuple[str, int]]:
        for series in list(self.requests.series.values()):
            text = shown(series)
            for outcome in list(series.outcomes):
                verdict = "failure" if outcome.is_failure else "success"
                grpc_status = _GRPC_TEXT.get(outcome.grpc_status, outcome.grpc_status)
                error = escaped(outcome.error) if outcome.error else ""
                ending = f'classification="{verdict}",grpc_status="{grpc_status}",error="{error}"'
                yield f"{text}{_status(outcome.status)},{ending}", outcome.count

    def _latencies(self) -> Iterator[tuple[str, Histogram]]:
        for series in list(self.requests.series.values()):
            text = shown(series)
            for latencies in list(series.latencies):
                value = Histogram(LATENCY_BOUNDS_MS, latencies.counts(), latencies.sum_ms)
                yield f"{text}{_status(latencies.status)}", value

    def _connections(self) -> Iterator[Family]:
        table = self.connections
        yield _counter("tcp_open_total", "Connections opened.", table, lambda s: s.opened)
        yield _counter("tcp_open_connections", "Connections open now.", table, lambda s: s.open_now, kind="gauge")
        yield _counter("tcp_read_bytes_total", "Bytes read from the peer.", table, lambda s: s.read_bytes)
        yield _counter("tcp_write_bytes_total", "Bytes written to the peer.", table, lambda s: s.write_bytes)
        closed = (
            (f'{shown(s)},errno="{errno}"', count)
            for s in list(table.series.values())
            for errno, count in list(s.closed.items())
        )
        yield Family("tcp_close_total", "counter", "Connections closed, by errno where they failed.", closed)

    # The newer generation

    def _inbound_routes(self) -> Iterator[Family]:
        table = self.inbound_routes
        yield _counter("inbound_http_requests_total", "Requests let in, by route.", table, lambda s: s.requests)
        yield from _durations("inbound_http", table, request=DURATION_BOUNDS, response=COARSE)
        yield from _frames("inbound_http", table, request=True, response=True)
        statuses = (
            (f'{text},status="{_code(status)}"', count) for text, status, _, count in _statuses(table, by_error=False)
        )
        yield Family("inbound_http_statuses_total", "counter", "Completed HTTP responses.", statuses)

    def _outbound_routes(self) -> Iterator[Family]:
        table = self.outbound_routes
        name = "outbound_http_route"
        yield from _durations(name, table, request=COARSE)
        yield from _frames(name, table, request=True)
        statuses = _by_status_and_error(table)
        yield Family(f"{name}_request_statuses_total", "counter", "Completed request-response streams.", statuses)
        table = self.outbound_backends
        name = "outbound_http_route_backend"
        yield _counter(f"{name}_requests_total", "Requests sent to a backend.", table, lambda s: s.requests)
        yield from _durations(name, table, response=DURATION_BOUNDS)
        yield from _frames(name, table, response=True)
        statuses = _by_status_and_error(table)
        yield Family(f"{name}_response_statuses_total", "counter", "Completed responses.", statuses)


_GRPC_TEXT: Final = {-1: "", -2: "2"}
"""What is not gRPC has the label empty, as in Linkerd; a gRPC response that did not say counts as `unknown`."""


def shown(series: Series) -> str:
    """The labels as text, made once: it is most of the cost of showing a series."""
    text = series.text
    if text is None:
        text = series.text = labels_text(series.labels)
    return text


def _status(status: int) -> str:
    """0 is no response at all."""
    return f',status_code="{_code(status)}"' if status else ""


def _code(status: int) -> str:
    """A negative status is one of too many to tell apart."""
    return str(status) if status > 0 else "other" if status else ""


def _counter(
    name: str, sentence: str, table: CounterTable, value: Callable[[Any], int], kind: str = "counter"
) -> Family:
    return Family(name, kind, sentence, ((shown(s), value(s)) for s in list(table.series.values())))


def _histogram(
    name: str,
    sentence: str,
    table: CounterTable,
    bounds: tuple[float, ...],
    value: Callable[[Any], tuple[tuple[int, ...], float]],
) -> Family:
    samples = ((shown(s), Histogram(bounds, *value(s))) for s in list(table.series.values()))
    return Family(name, "histogram", sentence, samples)


def _durations(
    name: str, table: CounterTable, request: tuple[float, ...] = (), response: tuple[float, ...] = ()
) -> Iterator[Family]:
    if request:
        sentence = "The time between request initialization and response completion."
        family = f"{name}_request_duration_seconds"
        yield _histogram(family, sentence, table, request, lambda s: merged(s.request_durations(), request))
    if response:
        sentence = "The time between request completion and response completion."
        family = f"{name}_response_duration_seconds"
        yield _histogram(family, sentence, table, response, lambda s: merged(s.response_durations(), response))


def _frames(name: str, table: CounterTable, request: bool = False, response: bool = False) -> Iterator[Family]:
    if request:
        sentence = "Request body frame sizes."
        family = f"{name}_request_frame_size_bytes"
        yield _histogram(family, sentence, table, FRAME_BOUNDS, lambda s: s.request_frame_sizes())
    if response:
        sentence = "Response body frame sizes."
        family = f"{name}_response_frame_size_bytes"
        yield _histogram(family, sentence, table, FRAME_BOUNDS, lambda s: s.response_frame_sizes())


def merged(value: tuple[tuple[int, ...], float], bounds: tuple[float, ...]) -> tuple[tuple[int, ...], float]:
    """Counts per DURATION_BOUNDS as counts per `bounds`, which are a part of them."""
    counts, total = value
    if bounds is DURATION_BOUNDS:
        return value
    summed, waiting = [], 0
    for bound, count in zip(DURATION_BOUNDS, counts, strict=False):
        waiting += count
        if bound in bounds:
            summed.append(waiting)
            waiting = 0
    return (*summed, waiting + counts[-1]), total


def _statuses(table: CounterTable, by_error: bool) -> Iterator[tuple[str, int, str, int]]:
    """(labels, status, error, count); without `by_error` one for each status, whatever it ended with."""
    for series in list(table.series.values()):
        text = shown(series)
        counts: dict[tuple[int, str], int] = {}
        for each in list(series.statuses):
            key = (each.status, each.error if by_error else "")
            counts[key] = counts.get(key, 0) + each.count
        for (status, error), count in counts.items():
            yield text, status, error, count


def _by_status_and_error(table: CounterTable) -> Iterable[tuple[str, int]]:
    return (
        (f'{text},http_status="{_code(status)}",error="{error}"', count)
        for text, status, error, count in _statuses(table, by_error=True)
    )


def _detected(table: CounterTable) -> Iterator[tuple[str, int]]:
    for series in list(table.series.values()):
        text = shown(series)
        for result, count in series.counts():
            yield f'result="{result}",{text}', count
