"""What the proxy has to reach, and whether it did. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of a scenario against a limit: a ratio to Envoy in the same run, or, if `is_own`, the figure itself."""

    scenario: str
    figure: str
    limit: float
    is_least: bool = False
    is_own: bool = False

    def value(self, result: dict[str, Any]) -> float | None:
        """What was measured, or None if it was not."""
        found = result.get("tulle" if self.is_own else "ratio", {}).get(self.figure)
        return None if found is None else float(found)

    def is_met(self, value: float) -> bool:
        """Whether this is good enough."""
        return value >= self.limit if self.is_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.is_least else '<='} {self.limit:g}"


HTTP: Final = ("http1-100b", "http1-10kb", "http1-no-keepalive", "h2-100b", "grpc-unary")
BARS: Final = (
    *(Bar(scenario, "cpu_us_per_request", 0.40) for scenario in HTTP),
    *(Bar(scenario, "rps", 2.2, is_least=True) for scenario in ("http1-100b", "h2-100b", "grpc-unary")),
    # Each request is seen as one.
    *(Bar(scenario, "counted", 0.99, is_least=True, is_own=True) for scenario in ("h2-100b", "grpc-unary")),
    *(Bar(s, figure, 0.6) for s in ("open-loop-200", "open-loop-1000") for figure in ("p50_ms", "p99_ms")),
    Bar("http1-100b", "rss_mb", 0.6),
    Bar("idle-1000", "rss_mb_empty", 0.45),
    Bar("idle-1000", "rss_mb", 0.5),
    # Both hops hold a plain and a TLS connection: 20 kB and 60 kB each.
    Bar("idle-1000", "rss_kb_per_connection", 160, is_own=True),
    Bar("idle-1000", "cpu_percent_one_byte", 5, is_own=True),
    Bar("tcp-throughput", "cpu_s_per_gb", 1.0),
    Bar("tcp-throughput", "gb_per_s", 1.0, is_least=True),
    Bar("endpoints-1000", "growth", 1.25, is_own=True),
)


def verdicts(scenarios: dict[str, Any]) -> Iterator[tuple[Bar, float, bool]]:
    """Each bar whose figure was measured: what it came to, and whether it is met."""
    for bar in BARS:
        value = bar.value(scenarios.get(bar.scenario, {}))
        if value is not None:
            yield bar, value, bar.is_met(value)
