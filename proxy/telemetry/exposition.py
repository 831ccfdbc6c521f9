"""Counters as text, in Prometheus's format 0.0.4 or as OpenMetrics: pure. Families in, chunks of bytes out; counts
nothing itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BATCH: Final = 512
"""Lines between two chunks: whoever sends them lets the loop run in between, so that a scrape delays no request.

They take half a millisecond.
"""
END: Final = b"# EOF\n"
"""Closes the text, a comment in format 0.0.4: a scrape that was cut short is told from a whole one."""

Labels = tuple[tuple[str, str], ...] | str
"""Pairs in the order they are shown, or what `labels_text` made of them."""


class Histogram(NamedTuple):
    """The value of one histogram series. `counts` has one entry per bound and one for +Inf, and is not cumulative."""

    bounds: tuple[float, ...]
    counts: Sequence[int]
    sum: float


class Modern(Histogram):
    """A histogram as Linkerd's newer generation writes it: `le` stands first, and bounds always have a fraction."""


Value = float | Histogram
Sample = tuple[Labels, Value]


class Family(NamedTuple):
    """All series of one name."""

    name: str
    type: str
    help: str
    samples: Iterable[Sample]


def escaped(value: str) -> str:
    """A label value as it stands between quotes."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    """Labels without their braces. Worth keeping beside a series: it is most of the cost of showing it."""
    return ",".join([f'{name}="{escaped(value)}"' for name, value in labels])


def number(value: float) -> str:
    """A value; integers stay free of a fraction and of an exponent, so that counters compare as text too."""
    if isinstance(value, int):
        return str(value)
    if isnan(value):
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def render(
    families: Iterable[tuple[str, str, str, Iterable[Sample]]], batch: int = BATCH, openmetrics: bool = False
) -> Iterator[bytes]:
    """The text in chunks of about `batch` lines. A family without series is left out."""
    lines: list[str] = []
    waiting = 0
    for name, kind, sentence, samples in families:
        is_headed = False
        for labels, value in samples:
            if not is_headed:
                words = sentence.replace("\\", "\\\\").replace("\n", "\\n")
                titled = name.removesuffix("_total") if openmetrics and kind == "counter" else name
                lines.append(f"# HELP {titled} {words}\n# TYPE {titled} {kind}\n")
                is_headed = True
            text = labels if isinstance(labels, str) else labels_text(labels)
            if isinstance(value, Histogram):
                lines.append(_histogram(name, text, value, openmetrics))
                waiting += len(value.counts) + 1
            elif text:
                lines.append(f"{name}{{{text}}} {number(value)}\n")
            else:
                lines.append(f"{name} {number(value)}\n")
            waiting += 1
            if waiting >= batch:
                yield "".join(lines).encode()
                lines.clear()
                waiting = 0
    if lines:
        yield "".join(lines).encode()


def _histogram(name: str, text: str, value: Histogram, openmetrics: bool) -> str:
    before, after = f"{name}_bucket{{{text}," if text else f"{name}_bucket{{", ""
    if isinstance(value, Modern):
        before, after = f"{name}_bucket{{", f",{text}" if text else ""
    spelt = repr if openmetrics or isinstance(value, Modern) else number
    total = 0
    lines = []
    for bound, count in zip(value.bounds, value.counts, strict=False):
        total += count
        lines.append(f'{before}le="{spelt(float(bound))}"{after}}} {total}\n')
    total += sum(value.counts[len(value.bounds) :])
    braced = f"{{{text}}}" if text else ""
    lines.append(
        f'{before}le="+Inf"{after}}} {total}\n{name}_sum{braced} {number(value.sum)}\n{name}_count{braced} {total}\n'
    )
    return "".join(lines)
