"""The bench's arithmetic: wrk's report, medians, ratios."""

import os

import pytest

from tests.bench.measure import Load, cpu_seconds, medians, memory_mb, milliseconds, ratios, read_wrk

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
