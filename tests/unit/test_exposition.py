"""What /metrics says, read back by prometheus-client's own parser."""

import math
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry.exposition import Family, Histogram, escaped, labels_text, number, render


def parsed(families: list[Any], batch: int = 256) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = b"".join(render(families, batch)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_and_gauges_come_back_as_they_went_in() -> None:
    seen = parsed(
        [
            Family("request_total", "counter", "Requests.", [((("direction", "inbound"), ("tls", "true")), 3)]),
            ("tcp_open_connections", "gauge", "Open now.", [((), 2), ((("peer", "src"),), 0.5)]),
        ]
    )
    assert seen == {
        ("request_total", (("direction", "inbound"), ("tls", "true"))): 3,
        ("tcp_open_connections", ()): 2,
        ("tcp_open_connections", (("peer", "src"),)): 0.5,
    }


@pytest.mark.parametrize("value", ['a"b', "back\\slash", "new\nline", 'all\\"\n', "ünï", "", "a\\nb"])
def test_any_label_value_survives(value: str) -> None:
    assert parsed([Family("x", "gauge", "Any.", [((("l", value),), 1)])]) == {("x", (("l", value),)): 1}


def test_help_may_hold_anything_and_type_is_kept() -> None:
    text = b"".join(render([Family("x", "gauge", "two\nlines \\ here", [((), 1)])])).decode()
    (family,) = text_string_to_metric_families(text)
    assert (family.documentation, family.type) == ("two\nlines \\ here", "gauge")


def test_a_histogram_is_cumulative_and_ends_in_infinity() -> None:
    value = Histogram((1.0, 5.0), (2, 3, 4), 77)
    seen = parsed([Family("ms", "histogram", "Latency.", [((("d", "in"),), value), ((), value)])])
    for labels in ((("d", "in"),), ()):
        counts = [seen["ms_bucket", tuple(sorted((*labels, ("le", le))))] for le in ("1", "5", "+Inf")]
        assert counts == [2, 5, 9]
        assert seen["ms_count", labels] == 9
        assert seen["ms_sum", labels] == 77


def test_labels_rendered_beforehand_are_the_same_text() -> None:
    pairs = (("a", 'x"y'), ("b", "z"))
    value = Histogram((1.0,), (1, 0), 1)
    for item in (1, value):
        first, second = ([Family("x", "gauge", "Same.", [(labels, item)])] for labels in (pairs, labels_text(pairs)))
        assert b"".join(render(first)) == b"".join(render(second))


def test_a_family_without_series_is_left_out() -> None:
    assert not list(render([Family("x", "counter", "None.", [])]))


def test_it_comes_in_batches_that_make_one_text() -> None:
    families = [Family("x", "counter", "Many.", [((("n", str(n)),), n) for n in range(1000)])]
    chunks = list(render(families, batch=300))
    assert len(chunks) == 4
    lines = [Histogram((1.0, 2.0), (1, 1, 1), 3)] * 100
    many = [Family("ms", "histogram", "Many lines.", [((("n", str(n)),), value) for n, value in enumerate(lines)])]
    assert len(list(render(many, batch=50))) == 10, "a histogram counts as its five lines"
    assert b"".join(chunks) == b"".join(render(families, batch=10**9))
    assert len(parsed(families, 300)) == 1000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (10**20, "100000000000000000000"),
        (1.0, "1"),
        (0.25, "0.25"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_written_as_prometheus_reads_them(value: float, text: str) -> None:
    assert number(value) == text


def test_what_needs_no_escape_is_not_copied() -> None:
    plain = "plain"
    assert escaped(plain) is plain
