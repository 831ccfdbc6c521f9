"""An attack on a proxy, and the five checks that it was withstood. Protocols are the suites' business. Does I/O.

    withstand(
        web.proxy, steady(outsider, address),   # a caller beside the attack: HTTP/1 GETs, 50 a second
        attack,                                 # attack() returns how its connection ended, in words
        ending={"GOAWAY ENHANCE_YOUR_CALM"}, cause=Cause.of("inbound_tcp_errors_total", error="reset flood"),
    )
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

from tests.kit.lines import Load
from tests.kit.sidecar import Proxy
from tests.kit.topology import Pod
from tests.kit.waiting import slowness, until

MIB: Final = 1 << 20
GROWTH: Final = 16 * MIB
"""How much more memory a proxy may hold at the height of an attack; some suites allow less."""
KEPT: Final = 6 * MIB
"""What it may keep afterwards: an allocator gives back late what was used once."""
LEFT: Final = 8
"""Descriptors it may keep afterwards: connections to an application are kept for later requests."""
CALM_SECONDS: Final = 10.0
RATE: Final = 50
"""Requests a second of the caller beside the attack."""
PATIENCE_SECONDS: Final = 1.0
"""What the slowest of its requests may take, here: two processors serve attacker, proxy and all."""
HEARD: Final = 5
"""Answers it must have had before the attack begins, and again after its end."""


class Caller(Protocol):
    """Somebody who sends requests while its context lasts, and keeps count."""

    ok: int
    failures: list[str]
    slowest: float
    """Seconds."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: Any) -> None:
        """End."""


def steady(pod: Pod, address: tuple[str, int]) -> Callable[[], Caller]:
    """Makes callers that send plain HTTP/1 requests, one after another on a connection that stays."""
    return lambda: Load(pod, address, clients=1, pause=1 / RATE)


@dataclass(frozen=True, slots=True)
class Cause:
    """Where the proxy says what it was that it ended: a counter that grows, and words that its log holds."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    words: str

    @classmethod
    def of(cls, metric: str, words: str = "", **labels: str) -> "Cause":
        """A counter by its labels; the log is searched for `words`, or for what the label `error` says."""
        return cls(metric, tuple(labels.items()), words or labels["error"])

    def count(self, proxy: Proxy) -> float:
        """What the counter says now."""
        return proxy.metric(self.metric, **dict(self.labels))


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen, for a report."""

    ending: str
    growth: int
    kept: int
    answered: int
    slowest: float

    def __str__(self) -> str:
        return (
            f"{self.ending}; memory +{self.growth / MIB:.1f} MiB, kept {self.kept / MIB:.1f} MiB; "
            f"{self.answered} good requests, the slowest {self.slowest * 1000:.0f} ms"
        )


def resident(proxy: Proxy) -> int:
    """Bytes of memory a proxy holds now."""
    return _status(proxy, "VmRSS")


def peak(proxy: Proxy) -> int:
    """The most it has held since `reset_peak`."""
    return _status(proxy, "VmHWM")


def reset_peak(proxy: Proxy) -> None:
    """Begin anew to look for the most."""
    Path(f"/proc/{proxy.pid}/clear_refs").write_text("5")


def descriptors(proxy: Proxy) -> int:
    """How many descriptors it has open."""
    return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))


def _status(proxy: Proxy, name: str) -> int:
    for line in Path(f"/proc/{proxy.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} of {proxy.pid}: it has ended")


def withstand(
    proxy: Proxy,
    good: Callable[[], Caller],
    attack: Callable[[], str],
    *,
    ending: Collection[str],
    cause: Cause | None,
    growth: int = GROWTH,
    kept: int = KEPT,
    patience: float = PATIENCE_SECONDS,
) -> Course:
    """Attack, and check: memory is bounded, others are served, the end is right, all recovers, the cause is named.

    `attack` does all of it and returns how it ended, as one of `ending`; what it opened it may leave open until its
    return. Without a `cause` the attack is one that the proxy has nothing to complain of.
    """
    before_cause = cause.count(proxy) if cause is not None else 0.0
    with good() as beside:
        _hear(beside)
        held, files = resident(proxy), descriptors(proxy)
        reset_peak(proxy)
        ended = attack()
        height = peak(proxy) - held
        _hear(beside)
    assert ended in ending, f"the attack ended with {ended!r}, not with one of {sorted(ending)}"
    assert height <= growth, f"memory grew by {height / MIB:.1f} MiB, more than {growth / MIB:.0f}"
    assert not beside.failures, f"good requests failed: {beside.failures[:5]}"
    bound = patience * slowness()
    assert beside.slowest <= bound, f"a good request took {beside.slowest:.2f} s, more than {bound:.2f}"
    with good() as after:
        _hear(after)
    assert not after.failures, f"a new connection is not served: {after.failures[:5]}"
    until("memory is given back", lambda: resident(proxy) - held <= kept, seconds=CALM_SECONDS, pause=0.1)
    until("descriptors are closed", lambda: descriptors(proxy) - files <= LEFT, seconds=CALM_SECONDS, pause=0.1)
    if cause is not None:
        until("the cause is counted", lambda: cause.count(proxy) > before_cause, seconds=CALM_SECONDS, pause=0.1)
        assert cause.words in proxy.log, f"the log does not name the cause ({cause.words})"
    return Course(ended, height, resident(proxy) - held, beside.ok, beside.slowest)


def _hear(caller: Caller) -> None:
    """Until the caller has had some more answers, or one of its requests has failed."""
    wanted = caller.ok + HEARD
    until("good requests are answered", lambda: caller.ok >= wanted or bool(caller.failures), seconds=10, pause=0.02)
