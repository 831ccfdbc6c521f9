"""What requests are counted as: the verdict on a response, and the slots it goes to."""

import pytest

from proxy.telemetry.classify import classified, grpc_request, grpc_status_of
from proxy.telemetry.counters import LATENCY_BOUNDS_MS, RequestSeries
from proxy.telemetry.exposition import render
from proxy.telemetry.registry import Registry

NOT_GRPC = -1
UNSAID = -2
MAX_OUTCOMES = 64
LABELS = (("direction", "inbound"),)
MS = 1_000_000


@pytest.mark.parametrize(("status", "failed"), [(200, False), (404, False), (499, False), (500, True), (599, True)])
def test_without_grpc_the_http_status_decides(status: int, failed: bool) -> None:
    assert classified(status, NOT_GRPC) is failed


@pytest.mark.parametrize("code", range(17))
def test_grpc_fails_by_the_codes_that_blame_the_server(code: int) -> None:
    assert classified(200, code) is (code in {2, 4, 7, 13, 14, 15})
    assert classified(503, code) is classified(200, code)


def test_grpc_that_never_said_is_a_success_called_unknown() -> None:
    assert classified(200, UNSAID) is False


@pytest.mark.parametrize(
    ("value", "code"),
    [(b"0", 0), (b"16", 16), (b"007", 7), (b"17", 2), (b"65535", 2), (b"65536", UNSAID), (b"", UNSAID), (b"-1", UNSAID),
     (b"2 ", UNSAID), (b"0x1", UNSAID), (b"000000", UNSAID)],
)  # fmt: skip
def test_a_grpc_status_is_a_number_or_nothing(value: bytes, code: int) -> None:
    assert grpc_status_of(value) == code


@pytest.mark.parametrize(
    ("value", "is_grpc"),
    [(b"application/grpc", True), (b"application/grpc+proto", True), (b"application/grpc-web", True),
     (b"application/grp", False), (b"text/plain; application/grpc", False), (b"", False)],
)  # fmt: skip
def test_a_grpc_request_is_told_by_how_its_content_type_begins(value: bytes, is_grpc: bool) -> None:
    assert grpc_request(value) is is_grpc


def outcomes(series: RequestSeries) -> dict[tuple[int, int, str | None, bool], int]:
    return {(o.status, o.grpc_status, o.error, o.is_failure): o.count for o in series.outcomes}


def test_each_ending_has_its_own_count() -> None:
    series = RequestSeries(LABELS)
    for _ in range(2):
        series.count(200)
        series.count(503)
        series.count(200, grpc_status=14)
        series.count(200, grpc_status=2)
        series.count(200, grpc_status=UNSAID)
        series.count(0, error="i/o")
    assert series.requests == 12
    assert outcomes(series) == {
        (200, NOT_GRPC, None, False): 2,
        (503, NOT_GRPC, None, True): 2,
        (200, 14, None, True): 2,
        (200, 2, None, True): 2,
        (200, UNSAID, None, False): 2,
        (0, NOT_GRPC, "i/o", True): 2,
    }


def test_latency_is_counted_by_http_status_alone() -> None:
    series = RequestSeries(LABELS)
    for elapsed in (1 * MS, 1 * MS + 1, 50_000 * MS, 50_001 * MS):
        series.count(200, grpc_status=elapsed % 2, elapsed_ns=elapsed)
    (latencies,) = series.latencies
    counts = dict(zip((*LATENCY_BOUNDS_MS, "+Inf"), latencies.counts(), strict=True))
    assert {bound for bound, count in counts.items() if count} == {1, 2, 50_000, "+Inf"}
    assert (latencies.count, latencies.sum_ms) == (4, 1 + 1 + 50_000 + 50_001)


def test_statuses_that_an_application_invents_do_not_grow_without_bound() -> None:
    series = RequestSeries(LABELS)
    for status in range(100, 1000):
        series.count(status)
        series.count(status, grpc_status=status % 17)
        series.count(status, error=f"error {status}")
    assert len(series.latencies) <= MAX_OUTCOMES + 1
    assert len(series.outcomes) <= MAX_OUTCOMES + 2
    assert sum(outcome.count for outcome in series.outcomes) == 2700
    failed = sum(outcome.count for outcome in series.outcomes if outcome.is_failure)
    assert failed == 100 + sum(s % 17 in {2, 4, 7, 13, 14, 15} for s in range(100, 1000)) + 900


def shown(registry: Registry, family: str) -> list[str]:
    text = b"".join(render(registry.families())).decode()
    return [line for line in text.splitlines() if line.startswith(family)]


def test_response_total_has_linkerds_labels_in_linkerds_order() -> None:
    registry = Registry()
    series = registry.requests.get(LABELS)
    assert isinstance(series, RequestSeries)
    series.count(200)
    series.count(200, grpc_status=14)
    series.count(200, grpc_status=UNSAID)
    series.count(0, error="cancelled")
    assert shown(registry, "response_total") == [
        'response_total{direction="inbound",status_code="200",classification="success",grpc_status="",error=""} 1',
        'response_total{direction="inbound",status_code="200",classification="failure",grpc_status="14",error=""} 1',
        'response_total{direction="inbound",status_code="200",classification="success",grpc_status="2",error=""} 1',
        'response_total{direction="inbound",classification="failure",grpc_status="",error="cancelled"} 1',
    ]
