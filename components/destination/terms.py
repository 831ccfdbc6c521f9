"""What the proxies of a Service's callers do about answers that fail or are late, as its annotations write it: pure.
Names and defaults are Linkerd's, but for the budget, which its retries by annotation do not have.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from components.destination.annotations import duration
from components.destination.annotations import read as annotation

RETRY: Final = "retry.linkerd.io/"
TIMEOUT: Final = "timeout.linkerd.io/"
BUDGET: Final = "retry.tulle.io/budget"
GRPC_CODES: Final = {
    "cancelled": 1, "deadline-exceeded": 4, "resource-exhausted": 8, "internal": 13, "unavailable": 14,
}  # fmt: skip
"""The codes that may be asked for again, by the names that users write."""
MAX_LIMIT: Final = 100
"""Tries after the first: more would be no retry but a load test."""
_STATUSES: Final = re.compile(r"([45][0-9]{2})(?:-([45][0-9]{2}))?")
_BUDGET: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)/([0-9]{1,6})/([0-9a-z]+)")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Budget:
    """How many retries one proxy may cause: a part of all requests in thousandths, and so many per second besides."""

    ratio_permille: int = 200
    min_per_second: int = 10
    ttl_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Retries:
    """Which answers are asked for again."""

    statuses: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges, sorted and apart."""
    grpc_codes: tuple[int, ...] = ()
    limit: int = 1
    try_timeout_ms: int = 0
    budget: Budget | None = Budget()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a Service says of all requests to it. Times in milliseconds; 0 is no limit."""

    retries: Retries | None = None
    request_ms: int = 0
    response_ms: int = 0
    idle_ms: int = 0


NONE: Final = Terms()


def parse(annotations: Mapping[str, str]) -> Terms:
    """Read a Service's annotations; raises AnnotationError for the first that cannot be used."""

    def read(name: str, default: T, parser: Callable[[str], T]) -> T:
        return annotation(annotations, name, default, parser)

    usual: Budget | None = Budget()
    retries = Retries(
        statuses=read(f"{RETRY}http", (), statuses),
        grpc_codes=read(f"{RETRY}grpc", (), grpc_codes),
        limit=read(f"{RETRY}limit", 1, _limit),
        try_timeout_ms=read(f"{RETRY}timeout", 0, duration),
        budget=read(BUDGET, usual, _budget),
    )
    return Terms(
        # A limit or a time alone does not say what to ask for again, so it asks for nothing, as in Linkerd.
        retries=retries if retries.statuses or retries.grpc_codes else None,
        request_ms=read(f"{TIMEOUT}request", 0, duration),
        response_ms=read(f"{TIMEOUT}response", 0, duration),
        idle_ms=read(f"{TIMEOUT}idle", 0, duration),
    )


def statuses(text: str) -> tuple[tuple[int, int], ...]:
    """`500,502-504`, `5xx`, `gateway-error` (502 to 504) as ranges. Raises ValueError."""
    found: list[tuple[int, int]] = []
    for item in (part.strip() for part in text.split(",")):
        match = _STATUSES.fullmatch(item)
        if item == "gateway-error":
            found.append((502, 504))
        elif item in ("4xx", "5xx"):
            found.append((int(item[0]) * 100, int(item[0]) * 100 + 99))
        elif match is not None and int(match[1]) <= int(match[2] or match[1]):
            found.append((int(match[1]), int(match[2] or match[1])))
        else:
            raise ValueError(f"{item!r} is no status from 400 to 599, no range of them, 4xx, 5xx or gateway-error")
    merged: list[tuple[int, int]] = []
    for first, last in sorted(found):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def grpc_codes(text: str) -> tuple[int, ...]:
    """Names of gRPC codes as sorted numbers. Raises ValueError."""
    names = [item.strip() for item in text.split(",")]
    for name in names:
        if name not in GRPC_CODES:
            raise ValueError(f"{name!r} is none of {', '.join(GRPC_CODES)}")
    return tuple(sorted({GRPC_CODES[name] for name in names}))


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"write a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _budget(text: str) -> Budget | None:
    if text == "none":
        return None
    match = _BUDGET.fullmatch(text)
    ttl = duration(match[3]) if match is not None else 0
    if match is None or not 1000 <= ttl <= 60_000:
        raise ValueError("write none, or retries per request, retries per second and 1s to 1m, such as 0.2/10/10s")
    return Budget(round(float(match[1]) * 1000), int(match[2]), ttl)
