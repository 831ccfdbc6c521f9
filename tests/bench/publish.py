"""`python -m tests.bench.publish`: README's table and plot, from build/bench.json and nothing else."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.__main__ import OUTPUT
from tests.bench.bars import BARS
from tests.kit.sidecar import ROOT

README: Final = ROOT / "README.md"
PLOT: Final = Path(__file__).with_name("ratios.svg")
BEGIN: Final = "<!-- bench: made by `python -m tests.bench.publish` -->"
END: Final = "<!-- /bench -->"
UNITS: Final = {
    "cpu_us_per_request": "CPU µs/request", "rps": "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms",
    "rss_mb": "memory MB", "rss_mb_empty": "memory MB, no connections", "rss_kb_per_connection": "kB/connection",
    "cpu_percent_one_byte": "% of a core, undetected", "cpu_s_per_gb": "CPU s/GB", "gb_per_s": "GB/s",
    "growth": "CPU of 1,000 endpoints by that of 3", "counted": "share counted",
}  # fmt: skip
WIDTH, ROW, LEFT = 720, 22, 300
"""Of the plot, in pixels; 1.0 is at half of what is right of LEFT."""


def rows(scenarios: dict[str, Any]) -> list[tuple[str, str, float, float, float]]:
    """Scenario, figure, ours, Envoy's and the ratio, of every bar that compares."""
    found = []
    for bar in BARS:
        result = scenarios.get(bar.scenario, {})
        if not bar.is_own and bar.figure in result.get("ratio", {}):
            ours, theirs = result["tulle"][bar.figure], result["envoy"][bar.figure]
            found.append((bar.scenario, UNITS[bar.figure], ours, theirs, result["ratio"][bar.figure]))
    return found


def table(scenarios: dict[str, Any]) -> str:
    """The table of README."""
    lines = ["| scenario | figure | Tulle | Envoy 1.40 | ratio |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| `{name}` | {unit} | {ours:.4g} | {theirs:.4g} | {ratio:.2f} |"
        for name, unit, ours, theirs, ratio in rows(scenarios)
    ]
    return "\n".join(lines)


def plot(scenarios: dict[str, Any]) -> str:
    """The ratios as bars, Envoy's line at 1."""
    found = rows(scenarios)
    most = max(2.0, *(row[4] for row in found)) if found else 2.0
    scale = (WIDTH - LEFT - 50) / most
    one = LEFT + scale
    height = ROW * (len(found) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (name, unit, _, _, ratio) in enumerate(found):
        top = number * ROW + 4
        lines += [
            f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{name}: {unit}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{ratio * scale:.1f}" height="{ROW - 8}" fill="#3b6ea5"/>',
            f'<text x="{LEFT + ratio * scale + 4:.1f}" y="{top + 12}">{ratio:.2f}</text>',
        ]
    lines += [
        f'<line x1="{one:.1f}" y1="0" x2="{one:.1f}" y2="{height - ROW}" stroke="#c03030"/>',
        f'<text x="{one:.1f}" y="{height - 6}" text-anchor="middle">Envoy 1.40 = 1</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code 1 when README has no place for the table."""
    scenarios = json.loads(OUTPUT.read_text())["scenarios"]
    text = README.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"README.md has no lines `{BEGIN}` and `{END}`", file=sys.stderr)
        return 1
    image = f"![Tulle's figures as ratios to Envoy's]({PLOT.relative_to(ROOT)})"
    README.write_text(f"{before}{BEGIN}\n\n{table(scenarios)}\n\n{image}\n\n{END}{after}")
    PLOT.write_text(plot(scenarios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
