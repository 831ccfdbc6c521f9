"""Every series of the process, by family, and how they are shown. Pure: times are arguments.

The families, labels and buckets are Linkerd's older generation (request_total, response_total, response_latency_ms,
tcp_*), because
that is what its users' dashboards read.
"""

from collections.abc import Iterator
from typing import Final

from proxy.telemetry.counters import LATENCY_BOUNDS_MS, CounterTable, EventCounters, RequestSeries, TCPSeries
from proxy.telemetry.exposition import Family, Histogram

Labels = tuple[tuple[str, str], ...]

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
}
"""Rare events: family -> sentence. A family outside this table is a programming error."""


class Registry:
    """The counters of one proxy. The hot path holds series of it; a scrape walks them."""

    def __init__(self) -> None:
        self.requests = CounterTable(RequestSeries)
        self.connections = CounterTable(TCPSeries)
        self.events = EventCounters()

    def event(self, family: str, labels: Labels) -> None:
        """Count one rare event; raises KeyError for a family that is not in the table."""
        EVENT_HELP[family]
        self.events.add(family, labels)

    def drop_idle(self, now_ns: int, retain_ns: int) -> int:
        """Forget series that nothing touched for `retain_ns`; returns how many. Open connections and known endpoints
        keep theirs."""
        dropped = 0
        for table in (self.requests, self.connections):
            for labels, series in list(table.series.items()):
                idle = now_ns - series.touched_ns > retain_ns and not series.is_pinned
                if idle and getattr(series, "open_now", 0) == 0:
                    series.is_dropped = True
                    del table.series[labels]
                    dropped += 1
        return dropped

    def families(self) -> Iterator[Family]:
        """Everything counted, lazily: a scrape yields to traffic between batches of series."""
        requests = self.requests.series
        connections = self.connections.series
        yield Family(
            "request_total", "counter", "Requests sent on.", ((s.labels, s.requests) for s in list(requests.values()))
        )
        yield Family("response_total", "counter", "Responses, at the end of their streams.", self._responses())
        yield Family(
            "response_latency_ms", "histogram", "Milliseconds from request to first byte of the body.",
            self._latencies()
        )
        for name, kind, sentence, field in (
            ("tcp_open_total", "counter", "Connections opened.", "opened"),
            ("tcp_open_connections", "gauge", "Connections open now.", "open_now"),
            ("tcp_read_bytes_total", "counter", "Bytes read from the peer.", "read_bytes"),
            ("tcp_write_bytes_total", "counter", "Bytes written to the peer.", "write_bytes"),
        ):
            yield Family(name, kind, sentence, [(s.labels, getattr(s, field)) for s in connections.values()])
        yield Family(
            "tcp_close_total",
            "counter",
            "Connections closed, by errno where they failed.",
            (
                ((*s.labels, *((("errno", reason),) if reason else ())), count)
                for s in list(connections.values())
                for reason, count in list(s.closed.items())
            ),
        )
        for family, sentence in EVENT_HELP.items():
            counts = [(labels, n) for (name, labels), n in list(self.events.counts.items()) if name == family]
            if counts:
                yield Family(family, "counter", sentence, counts)

    def _responses(self) -> Iterator[tuple[Labels, int]]:
        for series in list(self.requests.series.values()):
            for outcome in list(series.outcomes):
                verdict = "failure" if outcome.is_failure else "success"
                grpc_status = _GRPC_TEXT.get(outcome.grpc_status, str(outcome.grpc_status))
                ending = (("classification", verdict), ("grpc_status", grpc_status), ("error", outcome.error or ""))
                yield series.labels + _status(outcome.status) + ending, outcome.count

    def _latencies(self) -> Iterator[tuple[Labels, Histogram]]:
        for series in list(self.requests.series.values()):
            for latencies in list(series.latencies):
                yield (
                    series.labels + _status(latencies.status),
                    Histogram(LATENCY_BOUNDS_MS, latencies.counts(), latencies.sum_ms),
                )


_GRPC_TEXT: Final = {-1: "", -2: "2"}
"""What is not gRPC has the label empty, as in Linkerd; a gRPC response that did not say counts as `unknown`."""


def _status(status: int) -> Labels:
    """0 is no response at all, a negative one too many to tell apart."""
    return (("status_code", str(status) if status > 0 else "other"),) if status else ()
