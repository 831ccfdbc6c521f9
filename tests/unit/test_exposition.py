"""What /metrics says, read back by prometheus-client's own parsers: of the text format and of OpenMetrics."""

import math
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry.exposition import END, Family, Histogram, Modern, escaped, labels_text, number, render


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


def test_the_newer_histograms_are_written_as_linkerd_does() -> None:
    """`le` first, and never an integer; the older ones keep theirs last."""
    labels = (("parent", "a"), ("route", "b"))
    newer = [(labels, Modern((0.05, 1.0, 128), (1, 0, 0, 2), 3.5)), ((), Modern((1,), (0, 0), 0))]
    older = [(labels, Histogram((1, 50000), (1, 0, 2), 7))]
    families = [Family("new", "histogram", "New.", newer), Family("old", "histogram", "Old.", older)]
    text = b"".join(render(families)).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'new_bucket{le="0.05",parent="a",route="b"} 1',
        'new_bucket{le="1.0",parent="a",route="b"} 1',
        'new_bucket{le="128.0",parent="a",route="b"} 1',
        'new_bucket{le="+Inf",parent="a",route="b"} 3',
        'new_sum{parent="a",route="b"} 3.5',
        'new_count{parent="a",route="b"} 3',
        'new_bucket{le="1.0"} 0',
        'new_bucket{le="+Inf"} 0',
        "new_sum 0",
        "new_count 0",
        'old_bucket{parent="a",route="b",le="1"} 1',
        'old_bucket{parent="a",route="b",le="50000"} 1',
        'old_bucket{parent="a",route="b",le="+Inf"} 3',
        'old_sum{parent="a",route="b"} 7',
        'old_count{parent="a",route="b"} 3',
    ]


def strictly(text: str) -> list[Any]:
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def test_as_openmetrics_it_satisfies_the_strict_parser() -> None:
    families = [
        Family("request_total", "counter", "Requests \\ two\nlines.", [((("l", 'a"b\\c\nd'),), 3)]),
        Family("tcp_open_connections", "gauge", "Open.", [((), 2)]),
        Family("response_latency_ms", "histogram", "Latency.", [((("l", "x"),), Histogram((1, 5), (2, 3, 4), 77))]),
        Family("d_seconds", "histogram", "Lasted.", [((("l", "x"),), Modern((0.05, 10.0), (2, 3, 4), 7.5))]),
    ]
    text = b"".join(render(families, openmetrics=True)) + END
    found = {family.name: family for family in strictly(text.decode())}
    assert {name: family.type for name, family in found.items()} == {
        "request": "counter", "tcp_open_connections": "gauge", "response_latency_ms": "histogram",
        "d_seconds": "histogram",
    }  # fmt: skip
    assert found["request"].samples[0].labels == {"l": 'a"b\\c\nd'}
    les = [sample.labels["le"] for sample in found["response_latency_ms"].samples if "le" in sample.labels]
    assert les == ["1.0", "5.0", "+Inf"]
    # The text format is another: that parser has to know, or nothing was shown here.
    with pytest.raises(ValueError):
        strictly((b"".join(render(families)) + END).decode())


def test_the_end_is_a_comment_to_who_reads_the_text_format() -> None:
    text = (b"".join(render([Family("x", "gauge", "One.", [((), 1)])])) + END).decode()
    assert [family.name for family in text_string_to_metric_families(text)] == ["x"]


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
