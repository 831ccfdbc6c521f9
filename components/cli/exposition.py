"""Reading one family out of a Prometheus text exposition: pure. Types, help and exemplars are skipped."""

import re
from collections.abc import Iterator
from typing import Final

_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_UNESCAPED: Final = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def series(text: str, family: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and value of every sample of a family."""
    for line in text.splitlines():
        if not line.startswith(family):
            continue
        rest = line[len(family) :]
        labels: dict[str, str] = {}
        if rest.startswith("{"):
            braces, _, rest = rest.rpartition("}")
            labels = {
                name: re.sub(r'\\[n"\\]', lambda match: _UNESCAPED[match[0]], value)
                for name, value in _LABEL.findall(braces)
            }
        elif not rest.startswith(" "):
            continue
        yield labels, float(rest.split()[0])


def value(text: str, family: str) -> float | None:
    """The largest value of a family; None when it has no sample."""
    return max((sample for _, sample in series(text, family)), default=None)
