"""In which wave a workload is restarted, and whether the next wave may begin: pure. What has been found and measured
in, a plan or a verdict out.

Success is measured where it shows: at the namespace's own proxies as servers and as clients, and at everybody's proxies
that call into it. The worst of the three counts, since a server that cannot be reached counts nothing itself.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from components.upgrade.survey import Survey, Workload
from proxy.api import labels

OBSERVATIONS: Final = 3
"""Looks, one pause apart, that a fall may last before it ends the upgrade: a rollout's own hiccup is over by then."""

EVERYTHING: Final = 100
"""The tolerance, in per cent, with which nothing is measured."""
ROUNDING: Final = 1e-6
"""Per cent that binary fractions may add to a fall."""
FEW: Final = 10
"""Responses in a window below which a share says nothing, and their absence neither."""

Figures = Mapping[str, tuple[float, float]]
"""By place (`served`, `sent`, `called`): responses per second, and the share of them that succeeded."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Workloads of one namespace that are restarted together."""

    namespace: str
    number: int
    """From 1, within the namespace."""
    workloads: tuple[Workload, ...]

    def __str__(self) -> str:
        return f"{self.namespace}, wave {self.number}: {', '.join(map(str, self.workloads))}"


@dataclass(frozen=True, slots=True)
class Go:
    """The next wave may begin."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Not well, but perhaps soon: look again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The upgrade ends here until somebody has looked."""

    reason: str


Verdict = Go | Pause | Stop


def order(namespaces: Iterable[str], first: Sequence[str]) -> list[str]:
    """The stack's namespaces: those of `first` in its order, then all others by name. Others' namespaces stay out."""
    own = set(namespaces)
    return [*(name for name in first if name in own), *sorted(own - set(first))]


def waves(found: Survey, namespaces: Sequence[str], percent: int) -> list[Wave]:
    """The waves that are left, namespace by namespace. A wave's size is a share of all the namespace's workloads, not
    of those that are left, so that a run that goes on has waves of the same size.
    """
    planned: list[Wave] = []
    for namespace in namespaces:
        todo = [each for each in found.outdated if each.namespace == namespace]
        size = max(1, math.ceil(found.sizes.get(namespace, 0) * percent / 100))
        parts = [tuple(todo[start : start + size]) for start in range(0, len(todo), size)]
        planned += [Wave(namespace, number, part) for number, part in enumerate(parts, start=1)]
    return planned


def judge(before: Figures, after: Figures, tolerance: int, window: int, looks: int) -> Verdict:
    """Compare a namespace's figures with those before its first wave. `tolerance` is in per cent, `window` in seconds,
    and `looks` counts from 1.
    """
    if tolerance >= EVERYTHING:
        return Go("success is not measured (upgrade.tolerance)")
    judged = {place: figure for place, figure in before.items() if figure[0] * window >= FEW}
    if not judged:
        return Go("too little traffic to judge by; only the rollout was waited for")
    for place, (rate, share) in sorted(judged.items()):
        now = after.get(place, (0.0, 0.0))
        if now[0] <= 0:
            fallen = f"{WORDS[place]}: {rate:.1f} per second before, and none now"
        elif 100 * (share - now[1]) > tolerance + ROUNDING:
            fallen = (
                f"{WORDS[place]}: success fell from {100 * share:.1f} % to {100 * now[1]:.1f} %, which is more than "
                f"upgrade.tolerance ({tolerance}) allows"
            )
        else:
            continue
        return Pause(fallen) if looks < OBSERVATIONS else Stop(fallen)
    return Go()


WORDS: Final[Mapping[str, str]] = {
    "served": "responses of the namespace's servers",
    "sent": "requests of the namespace's clients",
    "called": "meshed calls into the namespace",
}


def queries(namespace: str, window: int) -> dict[str, tuple[str, str]]:
    """PromQL by place: all responses per second, and those that succeeded. `window` in seconds."""
    inbound = f'direction="inbound",route_name!="probe",namespace="{namespace}"'
    # Prometheus' own scrapes are no traffic of the namespace's.
    outbound = f'direction="outbound",target_port!="{labels.ADMIN_PORT}"'
    places = {
        "served": inbound,
        "sent": f'{outbound},namespace="{namespace}"',
        "called": f'{outbound},dst_namespace="{namespace}"',
    }

    def rate(selector: str) -> str:
        return f"sum(rate(response_total{{{selector}}}[{window}s]))"

    return {
        place: (rate(selector), rate(f'{selector},classification="success"')) for place, selector in places.items()
    }
