"""How series are shown: names, labels in their order, and buckets. Pure: tables in, families out; counts nothing.

They are Linkerd's, both generations: request_total, response_total, response_latency_ms and tcp_*, because that is what
its users' dashboards read, then those by route, backend and balancer. All of it is lazy: a scrape yields to traffic
between batches of lines.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from proxy.telemetry.balancing import QUEUE_BOUNDS
from proxy.telemetry.counters import LATENCY_BOUNDS_MS, CounterTable, Series
from proxy.telemetry.exposition import Family, Histogram, Modern, escaped, labels_text
from proxy.telemetry.streams import DETECT_BOUNDS, DURATION_BOUNDS, FRAME_BOUNDS

COARSE: Final = (0.05, 0.5, 1.0, 10.0)
"""How few bounds a family has out of DURATION_BOUNDS."""

Buckets = tuple[tuple[int, ...], float]
"""Counts per bucket, not cumulative, and the sum."""


def shown(series: Series) -> str:
    """The labels as text, made once: it is most of the cost of showing a series."""
    text = series.text
    if text is None:
        text = series.text = labels_text(series.labels)
    return text


def counts(
    name: str, sentence: str, table: CounterTable, value: Callable[[Any], float], kind: str = "counter"
) -> Family:
    """One sample for each series."""
    return Family(name, kind, sentence, ((shown(s), value(s)) for s in _all(table)))


def _all(table: CounterTable) -> Iterator[Any]:
    """The series of a moment, taken when the first is asked for: traffic makes others while a scrape waits."""
    yield from list(table.series.values())


def _histogram(
    name: str, sentence: str, table: CounterTable, bounds: tuple[float, ...], value: Callable[[Any], Buckets]
) -> Family:
    samples = ((shown(s), Modern(bounds, *value(s))) for s in _all(table))
    return Family(name, "histogram", sentence, samples)


# The older generation


def requests(prefix: str, table: CounterTable) -> Iterator[Family]:
    """`prefix` is empty for traffic, control_ for calls of the proxy's own."""
    yield counts(f"{prefix}request_total", "Requests sent on.", table, lambda s: s.requests)
    sentence = "Milliseconds from request to first byte of the body."
    yield Family(f"{prefix}response_latency_ms", "histogram", sentence, _latencies(table))
    yield Family(f"{prefix}response_total", "counter", "Responses, at the end of their streams.", _responses(table))


def _responses(table: CounterTable) -> Iterator[tuple[str, int]]:
    for series in _all(table):
        text = shown(series)
        for outcome in list(series.outcomes):
            verdict = "failure" if outcome.is_failure else "success"
            grpc_status = _GRPC_TEXT.get(outcome.grpc_status, outcome.grpc_status)
            error = escaped(outcome.error) if outcome.error else ""
            ending = f'classification="{verdict}",grpc_status="{grpc_status}",error="{error}"'
            yield f"{text}{_status(outcome.status)},{ending}", outcome.count


def _latencies(table: CounterTable) -> Iterator[tuple[str, Histogram]]:
    for series in _all(table):
        text = shown(series)
        for latencies in list(series.latencies):
            value = Histogram(LATENCY_BOUNDS_MS, latencies.counts(), latencies.sum_ms)
            yield f"{text}{_status(latencies.status)}", value


_GRPC_TEXT: Final = {-1: "", -2: "2"}
"""What is not gRPC has the label empty, as in Linkerd; a gRPC response that did not say counts as `unknown`."""


def _status(status: int) -> str:
    """0 is no response at all."""
    return f',status_code="{_code(status)}"' if status else ""


def _code(status: int) -> str:
    """A negative status is one of too many to tell apart."""
    return str(status) if status > 0 else "other" if status else ""


def connections(table: CounterTable) -> Iterator[Family]:
    """tcp_*"""
    yield counts("tcp_open_total", "Connections opened.", table, lambda s: s.opened)
    yield counts("tcp_open_connections", "Connections open now.", table, lambda s: s.open_now, kind="gauge")
    yield counts("tcp_read_bytes_total", "Bytes read from the peer.", table, lambda s: s.read_bytes)
    yield counts("tcp_write_bytes_total", "Bytes written to the peer.", table, lambda s: s.write_bytes)
    closed = ((f'{shown(s)},errno="{errno}"', count) for s in _all(table) for errno, count in list(s.closed.items()))
    yield Family("tcp_close_total", "counter", "Connections closed, by errno where they failed.", closed)


# The newer generation: by route


def inbound_routes(name: str, table: CounterTable) -> Iterator[Family]:
    """`name` ends in http or grpc; the status is that of the protocol."""
    yield counts(f"{name}_requests_total", "Requests let in, by route.", table, lambda s: s.requests)
    yield _durations(name, "request", table, DURATION_BOUNDS)
    yield _durations(name, "response", table, COARSE)
    yield _frames(name, "request", table)
    yield _frames(name, "response", table)
    is_grpc = name.endswith("grpc")
    # A code of gRPC as it is on the wire, as in Linkerd, and 0 is one; not so in the outbound families.
    statuses = (
        (f'{text},status="{status if is_grpc and status >= 0 else _code(status)}"', count)
        for text, status, _, count in _statuses(table, by_error=False)
    )
    sentence = f"Completed {'gRPC' if is_grpc else 'HTTP'} responses."
    yield Family(f"{name}_statuses_total", "counter", sentence, statuses)


def outbound_routes(name: str, table: CounterTable) -> Iterator[Family]:
    """Requests as the application sees them, whatever it took to have them answered."""
    yield _durations(name, "request", table, COARSE)
    yield _frames(name, "request", table)
    sentence = "Completed request-response streams."
    yield Family(f"{name}_request_statuses_total", "counter", sentence, _ended(name, table))
    for what, told, value in _RETRIES:
        yield Family(f"{name}_retry_{what}_total", "counter", told, _retried(table, value))


_RETRIES: Final[tuple[tuple[str, str, Callable[[Any], int]], ...]] = (
    ("requests", "Requests sent once more.", lambda s: s.retries),
    ("successes", "Requests that succeeded after they were sent once more.", lambda s: s.retry_successes),
    ("limit_exceeded", "Requests not sent once more: they had been often enough.", lambda s: s.retry_limits),
    ("overflow", "Requests not sent once more: no budget or no endpoint was left.", lambda s: s.retry_overflows),
)


def _retried(table: CounterTable, value: Callable[[Any], int]) -> Iterator[tuple[str, int]]:
    """Of routes that retry alone: zeros for all others would cost every scrape."""
    for series in _all(table):
        if series.retries or series.retry_limits or series.retry_overflows:
            yield shown(series), value(series)


def outbound_backends(name: str, table: CounterTable) -> Iterator[Family]:
    """Each try, at the backend that got it."""
    yield counts(f"{name}_requests_total", "Requests sent to a backend.", table, lambda s: s.requests)
    yield _durations(name, "response", table, DURATION_BOUNDS)
    yield _frames(name, "response", table)
    yield Family(f"{name}_response_statuses_total", "counter", "Completed responses.", _ended(name, table))


_TIMES: Final[dict[str, tuple[str, Callable[[Any], Buckets]]]] = {
    "request": ("The time between request initialization and response completion.", lambda s: s.request_durations()),
    "response": ("The time between request completion and response completion.", lambda s: s.response_durations()),
}
_SIZES: Final[dict[str, tuple[str, Callable[[Any], Buckets]]]] = {
    "request": ("Request body frame sizes.", lambda s: s.request_frame_sizes()),
    "response": ("Response body frame sizes.", lambda s: s.response_frame_sizes()),
}


def _durations(name: str, what: str, table: CounterTable, bounds: tuple[float, ...]) -> Family:
    sentence, value = _TIMES[what]
    return _histogram(f"{name}_{what}_duration_seconds", sentence, table, bounds, lambda s: merged(value(s), bounds))


def _frames(name: str, what: str, table: CounterTable) -> Family:
    sentence, value = _SIZES[what]
    return _histogram(f"{name}_{what}_frame_size_bytes", sentence, table, FRAME_BOUNDS, value)


def merged(value: Buckets, bounds: tuple[float, ...]) -> Buckets:
    """Counts per DURATION_BOUNDS as counts per `bounds`, which are a part of them."""
    counted, total = value
    if bounds is DURATION_BOUNDS:
        return value
    summed, waiting = [], 0
    for bound, count in zip(DURATION_BOUNDS, counted, strict=False):
        waiting += count
        if bound in bounds:
            summed.append(waiting)
            waiting = 0
    return (*summed, waiting + counted[-1]), total


def _statuses(table: CounterTable, by_error: bool) -> Iterator[tuple[str, int, str, int]]:
    """(labels, status, error, count); without `by_error` one for each status, whatever it ended with."""
    for series in _all(table):
        text = shown(series)
        summed: dict[tuple[int, str], int] = {}
        for each in list(series.statuses):
            key = (each.status, each.error if by_error else "")
            summed[key] = summed.get(key, 0) + each.count
        for (status, error), count in summed.items():
            yield text, status, error, count


GRPC_NAMES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""grpc-status by its number, as outbound families say it."""


def _ended(name: str, table: CounterTable) -> Iterable[tuple[str, int]]:
    if "_grpc_" in name:
        return (
            (f'{text},grpc_status="{GRPC_NAMES[status] if status >= 0 else "other"}",error="{error}"', count)
            for text, status, error, count in _statuses(table, by_error=True)
        )
    return (
        (f'{text},http_status="{_code(status)}",error="{error}"', count)
        for text, status, error, count in _statuses(table, by_error=True)
    )


# The newer generation: by connection and balancer


def detections(name: str, table: CounterTable) -> Iterator[Family]:
    """What connections turned out to speak."""
    results = ((f'result="{result}",{shown(s)}', count) for s in _all(table) for result, count in s.counts())
    yield Family(f"{name}_results_total", "counter", "Protocol detection results.", results)
    sentence = "Time taken for protocol detection."
    yield _histogram(f"{name}_duration_seconds", sentence, table, DETECT_BOUNDS, lambda s: s.durations())


def balancers(name: str, table: CounterTable) -> Iterator[Family]:
    """Endpoints, discovery's updates, and the queue in front of them with its gate."""
    yield Family(f"{name}_endpoints", "gauge", "Endpoints in the balancer, by state.", _endpoints(table))
    yield counts(f"{name}_p2c_endpoints", "Endpoints in the balancer.", table, lambda s: s.endpoints(), kind="gauge")
    yield Family(f"{name}_p2c_updates_total", "counter", "Updates that discovery sent.", _updates(table))
    queue = f"{name}_queue"
    yield counts(f"{queue}_length", "Requests that wait for an endpoint.", table, lambda s: s.waiting, kind="gauge")
    yield counts(f"{queue}_requests_total", "Requests that entered the queue.", table, lambda s: s.requests)
    sentence = "Time that requests spent in the queue."
    yield _histogram(f"{queue}_latency_seconds", sentence, table, QUEUE_BOUNDS, lambda s: s.queue_latency())
    gate = f"{queue}_gate"
    yield counts(f"{gate}_open_total", "State changes to open.", table, lambda s: s.openings)
    yield counts(f"{gate}_shut_total", "State changes to shut: failfast.", table, lambda s: s.shuttings)
    yield counts(f"{gate}_open_time_seconds", "When it was opened; 0 if shut.", table, lambda s: s.opened_at, "gauge")
    yield counts(f"{gate}_shut_time_seconds", "When it was shut; 0 if open.", table, lambda s: s.shut_at, "gauge")
    sentence = "How long a request waits before the gate shuts."
    yield counts(f"{gate}_timeout_seconds", sentence, table, lambda s: s.timeout, "gauge")


def _endpoints(table: CounterTable) -> Iterator[tuple[str, int]]:
    for series in _all(table):
        text, known, ready = shown(series), series.endpoints(), series.ready()
        yield f'{text},endpoint_state="pending"', known - ready
        yield f'{text},endpoint_state="ready"', ready


def _updates(table: CounterTable) -> Iterator[tuple[str, int]]:
    for series in _all(table):
        text = shown(series)
        yield f'op="Reset",{text}', series.resets
        yield f'op="Add",{text}', series.additions
        yield f'op="Remove",{text}', series.removals
