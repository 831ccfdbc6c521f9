"""How the proxies of a Service's callers treat its endpoints, as its annotations write it: pure. The names and defaults
are Linkerd's.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from components.destination.annotations import AnnotationError, duration
from components.destination.annotations import read as annotation

PREFIX: Final = "balancer.linkerd.io/"
ALPHA: Final = "balancer.alpha.linkerd.io/"
ACCRUAL: Final = PREFIX + "failure-accrual"
MODES: Final = ("consecutive", "unified")


@dataclass(frozen=True, slots=True)
class FailureAccrual:
    """When an endpoint is left alone. Times in milliseconds, parts in thousandths; 0 turns a rule off."""

    max_failures: int = 7
    min_penalty_ms: int = 1000
    max_penalty_ms: int = 60_000
    jitter_permille: int = 500
    success_rate_permille: int = 0
    window_ms: int = 10_000
    min_requests: int = 5


@dataclass(frozen=True, slots=True)
class Balancing:
    """What a Service says of all its endpoints."""

    failure_accrual: FailureAccrual | None = None
    penalty_ms: int = 5000
    """What an answer that asks for less counts as, at least."""
    max_retry_after_ms: int = 300_000
    penalizes_failures: bool = False
    """Whether every failing answer counts as a slow one."""


DEFAULT: Final = Balancing()


def parse(annotations: Mapping[str, str]) -> Balancing:
    """Read a Service's annotations; raises AnnotationError for the first that cannot be used."""

    def read(name: str, default: int, parser: Callable[[str], int]) -> int:
        return annotation(annotations, name, default, parser)

    mode = annotations.get(ACCRUAL)
    accrual = None
    if mode is not None:
        if mode not in MODES:
            raise AnnotationError(f"annotation {ACCRUAL}={mode!r}: write one of {', '.join(MODES)}")
        unified = mode == "unified"
        rules = FailureAccrual()
        accrual = FailureAccrual(
            max_failures=read(f"{ACCRUAL}-consecutive-max-failures", rules.max_failures, _count(0 if unified else 1)),
            min_penalty_ms=read(f"{ACCRUAL}-consecutive-min-penalty", rules.min_penalty_ms, duration),
            max_penalty_ms=read(f"{ACCRUAL}-consecutive-max-penalty", rules.max_penalty_ms, duration),
            jitter_permille=read(f"{ACCRUAL}-consecutive-jitter-ratio", rules.jitter_permille, _part(100.0)),
            success_rate_permille=read(f"{ALPHA}failure-accrual-success-rate-threshold", 800, _part(1.0))
            if unified
            else 0,
            window_ms=read(f"{ALPHA}failure-accrual-success-rate-window", rules.window_ms, duration),
            min_requests=read(f"{ALPHA}failure-accrual-min-requests", rules.min_requests, _count(1)),
        )
        if accrual.min_penalty_ms > accrual.max_penalty_ms:
            raise AnnotationError(
                f"the least penalty of {ACCRUAL}, {accrual.min_penalty_ms} ms, is over its greatest, "
                f"{accrual.max_penalty_ms} ms"
            )
    return Balancing(
        failure_accrual=accrual,
        penalty_ms=read(f"{ALPHA}load-biaser-penalty", DEFAULT.penalty_ms, duration),
        max_retry_after_ms=read(f"{ALPHA}load-biaser-max-retry-after", DEFAULT.max_retry_after_ms, duration),
        penalizes_failures=bool(read(f"{ALPHA}penalize-failures", 0, _boolean)),
    )


def _count(least: int) -> Callable[[str], int]:
    def parse_count(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
            raise ValueError(f"write a whole number from {least} on")
        return int(text)

    return parse_count


def _part(most: float) -> Callable[[str], int]:
    def parse_part(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text) or float(text) > most:
            raise ValueError(f"write a number from 0 to {most:g}")
        return round(float(text) * 1000)

    return parse_part


def _boolean(text: str) -> int:
    if text not in ("true", "false"):
        raise ValueError("write true or false")
    return int(text == "true")
