"""The bench's arithmetic: the reports of load generators, medians, ratios, bars, and what a soak calls growth."""

import json
import os

import pytest

from tests.bench import publish
from tests.bench.bars import verdicts
from tests.bench.measure import (
    Load,
    cpu_seconds,
    medians,
    memory_mb,
    milliseconds,
    ratios,
    read_fortio,
    read_h2load,
    read_wrk,
)
from tests.bench.soak import Sample, judge

REPORT = """Running 3s test @ http://10.96.0.1:80/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.60ms    1.00ms  30.00ms   90.00%
    Req/Sec    12.00k     1.00k   13.00k    70.00%
  Latency Distribution
     50%    2.18ms
     75%    3.00ms
     90%    4.00ms
     99%  980.00us
  36000 requests in 3.00s, 8.00MB read
Requests/sec:  12000.50
Transfer/sec:      2.66MB
"""


def test_a_report_is_read() -> None:
    assert read_wrk(REPORT) == Load(36000, 12000.5, 2.18, 0.98, 0)


def test_errors_are_counted() -> None:
    text = REPORT + "  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 4\n"
    assert read_wrk(text).errors == 10


@pytest.mark.parametrize(("text", "value"), [("980.00us", 0.98), ("2.5ms", 2.5), ("1.20s", 1200), ("1.00m", 60_000)])
def test_times_have_units(text: str, value: float) -> None:
    assert milliseconds(text) == pytest.approx(value)


def test_medians_and_ratios() -> None:
    ours = medians([{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 5.0}, {"a": 9.0, "b": 4.0}])
    assert ours == {"a": 2.0, "b": 4.0}
    assert ratios(ours, {"a": 4.0, "b": 0.0}) == {"a": 0.5}


def test_a_process_is_measured() -> None:
    assert cpu_seconds(os.getpid()) > 0
    assert 5 < memory_mb(os.getpid()) < 4000


STREAMS = """finished in 1.00s, 20742.00 req/s, 2.95MB/s
requests: 20742 total, 20870 started, 20742 done, 20740 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 20740 2xx, 0 3xx, 0 4xx, 2 5xx
"""


def test_h2loads_report_is_read() -> None:
    assert read_h2load(STREAMS) == (20742, 5)


def test_fortios_report_is_read() -> None:
    percentiles = [{"Percentile": 50, "Value": 0.0005}, {"Percentile": 99, "Value": 0.002}]
    report = {
        "ActualQPS": 199.5, "DurationHistogram": {"Percentiles": percentiles}, "RetCodes": {"200": 990, "503": 10},
    }  # fmt: skip
    assert read_fortio(json.dumps(report)) == Load(1000, 199.5, 0.5, 2.0, 10)


SCENARIOS = {
    "http1-100b": {
        "tulle": {"rps": 200.0, "cpu_us_per_request": 50.0}, "envoy": {"rps": 100.0, "cpu_us_per_request": 200.0},
        "ratio": {"rps": 2.0, "cpu_us_per_request": 0.25},
    },
    "endpoints-1000": {"tulle": {"growth": 1.2}, "envoy": {"growth": 1.0}, "ratio": {"growth": 1.2}},
}  # fmt: skip


def test_bars_are_met_or_missed() -> None:
    found = {(bar.scenario, bar.figure): (value, is_met) for bar, value, is_met in verdicts(SCENARIOS)}
    assert found == {
        ("http1-100b", "rps"): (2.0, False),
        ("http1-100b", "cpu_us_per_request"): (0.25, True),
        ("endpoints-1000", "growth"): (1.2, True),
    }


def test_what_is_published_is_what_was_measured() -> None:
    assert "| `http1-100b` | requests/s | 200 | 100 | 2.00 |" in publish.table(SCENARIOS)
    assert publish.plot(SCENARIOS).count("<rect") == 3


def test_a_soak_fails_on_growth_and_not_on_warming_up() -> None:
    warming = [Sample(t, 20.0 + min(t, 10), 30) for t in range(50)]
    assert judge("proxy", warming) == []
    leaking = [Sample(t, 30.0 + t * 0.1, 30 + t) for t in range(50)]
    assert [fault.partition(" grew")[0] for fault in judge("proxy", leaking)] == ["proxy: memory", "proxy: descriptors"]
