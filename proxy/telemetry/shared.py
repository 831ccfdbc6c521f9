"""Counters of several processes as one set: pure but for the memory they share. Knows no sockets and no clock.

A process counts in its own memory, as one that is alone does, and writes what it has counted down: numbers into slots
of memory that outlives it, and once for each series its labels, as a message, with the place of its slots. The one that
started the others adds up by family and labels.

What was counted never shrinks: when a process ends, or forgets a series that was idle, its last number is kept in the
sum until every process has forgotten that series and it has been idle as long as a series may be. Gauges end with
their process.

A slot is a double, as in Prometheus itself: whole numbers are exact up to 2^53.
"""

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from proxy.telemetry.exposition import BATCH, Family, Histogram, Sample, labels_text

MEMORY_BYTES: Final = 16 << 20
"""Of one process, two million numbers; what is not written is not backed by memory."""
MAX_ENDED: Final = 10_000
"""Series of one family kept for processes that no longer have them, as many as a process may have of a direction."""
_KINDS: Final[tuple[type[Histogram], ...]] = (Histogram, *Histogram.__subclasses__())
HISTOGRAMS: Final = {each.__name__: each for each in _KINDS}
"""How exposition can show one, by name."""

Message = dict[str, Any]


class Shape(NamedTuple):
    """What is the same for all series of a family."""

    type: str
    help: str
    bounds: tuple[float, ...] | None
    """Of a histogram, whose slots are its counts and then its sum; None for a single number."""
    kind: str
    """The name of its class: a histogram is shown as what it was counted as."""

    @property
    def size(self) -> int:
        """Slots of one series."""
        return 1 if self.bounds is None else len(self.bounds) + 2


class _Place:
    """Where one series is written."""

    __slots__ = ("seen", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.seen = 0


class _Known:
    """A family and the places of its series, by their labels."""

    __slots__ = ("places", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.places: dict[str, _Place] = {}


class Publisher:
    """In the process that counts. `tell` sends a message to the one that adds up; what is told arrives in order."""

    def __init__(self, memory: mmap.mmap, header_slots: int, tell: Callable[[Message], None]) -> None:
        self._numbers = memoryview(memory).cast("d")
        self._tell = tell
        self._next = header_slots
        self._known: dict[str, _Known] = {}
        self._free: dict[int, list[int]] = {}
        self._forgotten: dict[int, tuple[int, list[int]]] = {}
        self._forgettings = 0
        self._round = 0
        self.left_out = 0
        """Series that found no room in the last round."""

    def publish(self, families: Iterable[Family]) -> Iterator[None]:
        """Write everything down; yields between batches, so that traffic may pass."""
        self._round += 1
        self.left_out = written = 0
        for family in families:
            known = self._known.get(family.name)
            new: list[tuple[str, int]] = []
            seen = 0
            for labels, value in family.samples:
                if known is None:
                    known = self._known[family.name] = _Known(_shape(family, value))
                text = labels if isinstance(labels, str) else labels_text(labels)
                place = known.places.get(text)
                if place is None:
                    slot = self._room(known.shape.size)
                    if slot < 0:
                        self.left_out += 1
                        continue
                    place = known.places[text] = _Place(slot)
                    new.append((text, slot))
                self._write(place.slot, value)
                seen += place.seen != self._round
                place.seen = self._round
                written += 1
                if written % BATCH == 0:
                    self._announce(family.name, known.shape, new)
                    new = []
                    yield
            if known is not None:
                self._announce(family.name, known.shape, new)
                if seen < len(known.places):
                    self._forget(family.name, known)

    def freed(self, number: int) -> None:
        """The other side has taken over what was forgotten under this number: its slots may be used again."""
        size, slots = self._forgotten.pop(number)
        self._free.setdefault(size, []).extend(slots)

    def _write(self, slot: int, value: float | Histogram) -> None:
        numbers = self._numbers
        if isinstance(value, Histogram):
            for count in value.counts:
                numbers[slot] = count
                slot += 1
            numbers[slot] = value.sum
        else:
            numbers[slot] = value

    def _room(self, size: int) -> int:
        """The first of `size` slots that nobody uses; -1 when memory is full."""
        free = self._free.get(size)
        if free:
            return free.pop()
        if self._next + size > len(self._numbers):
            return -1
        slot, self._next = self._next, self._next + size
        return slot

    def _announce(self, name: str, shape: Shape, new: list[tuple[str, int]]) -> None:
        if new:
            self._tell({"kind": "series", "family": name, "shape": shape, "new": new})

    def _forget(self, name: str, known: _Known) -> None:
        gone = [(text, place.slot) for text, place in known.places.items() if place.seen != self._round]
        for text, _ in gone:
            del known.places[text]
        self._forgettings += 1
        self._forgotten[self._forgettings] = (known.shape.size, [slot for _, slot in gone])
        texts = [text for text, _ in gone]
        self._tell({"kind": "forgotten", "family": name, "texts": texts, "number": self._forgettings})


def _shape(family: Family, value: float | Histogram) -> Shape:
    bounds = value.bounds if isinstance(value, Histogram) else None
    return Shape(family.type, family.help, bounds, type(value).__name__)


class Contributor:
    """What one process has written down, as the one that adds up knows it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._numbers = memoryview(memory).cast("d")
        self.slots: dict[str, dict[str, int]] = {}

    def read(self, slot: int, size: int) -> list[float]:
        """The numbers of one series as they are now."""
        return list(self._numbers[slot : slot + size])


class _Ended:
    """What processes counted under labels that they no longer have."""

    __slots__ = ("since_ns", "values")

    def __init__(self, values: list[float], since_ns: int) -> None:
        self.values = values
        self.since_ns = since_ns


class Ledger:
    """In the process that adds up."""

    def __init__(self) -> None:
        self._contributors: list[Contributor] = []
        self._shapes: dict[str, Shape] = {}
        self._ended: dict[str, dict[str, _Ended]] = {}

    def add(self, contributor: Contributor) -> None:
        """A process has begun."""
        self._contributors.append(contributor)

    def remove(self, contributor: Contributor, now_ns: int) -> None:
        """A process has ended, however it did: what it had counted stays."""
        self._contributors.remove(contributor)
        for name, slots in contributor.slots.items():
            for text, slot in slots.items():
                self._keep(name, text, contributor.read(slot, self._shapes[name].size), now_ns)
        contributor.slots = {}

    def series(self, contributor: Contributor, message: Message) -> None:
        """The labels and places of series that are new."""
        name = message["family"]
        type_, sentence, bounds, kind = message["shape"]
        self._shapes[name] = Shape(type_, sentence, tuple(bounds) if bounds is not None else None, kind)
        contributor.slots.setdefault(name, {}).update(message["new"])

    def forgotten(self, contributor: Contributor, message: Message, now_ns: int) -> None:
        """A process has dropped series; after this call it may use their slots for others."""
        name = message["family"]
        slots = contributor.slots[name]
        for text in message["texts"]:
            self._keep(name, text, contributor.read(slots.pop(text), self._shapes[name].size), now_ns)

    def _keep(self, name: str, text: str, values: list[float], now_ns: int) -> None:
        if self._shapes[name].type == "gauge":
            return
        ended = self._ended.setdefault(name, {})
        kept = ended.pop(text, None)
        if kept is not None:
            values = [a + b for a, b in zip(kept.values, values, strict=True)]
        elif len(ended) >= MAX_ENDED:
            del ended[next(iter(ended))]  # the oldest: each is put back at the end when it changes
        ended[text] = _Ended(values, now_ns)

    def drop_idle(self, now_ns: int, retain_ns: int) -> int:
        """Forget what nobody has counted under any more for `retain_ns`; returns how many series."""
        dropped = 0
        for name, ended in self._ended.items():
            for text, kept in list(ended.items()):
                if now_ns - kept.since_ns > retain_ns and not self._is_live(name, text):
                    del ended[text]
                    dropped += 1
        return dropped

    def _is_live(self, name: str, text: str) -> bool:
        return any(text in contributor.slots.get(name, ()) for contributor in self._contributors)

    def families(self, own: Iterable[Family] = ()) -> Iterator[Family]:
        """The sum of all processes, and of `own`, which this one has counted itself; lazily, family by family."""
        mine = {family.name: family for family in own}
        for name, shape in list(self._shapes.items()):
            family = mine.pop(name, None)
            samples = self._sum(name, shape, family.samples if family is not None else ())
            yield Family(name, shape.type, shape.help, samples)
        yield from mine.values()

    def _sum(self, name: str, shape: Shape, own: Iterable[Sample]) -> Iterator[Sample]:
        total = {text: list(kept.values) for text, kept in self._ended.get(name, {}).items()}
        for labels, value in own:
            text = labels if isinstance(labels, str) else labels_text(labels)
            _add(total, text, [*value.counts, value.sum] if isinstance(value, Histogram) else [value])
        for contributor in self._contributors:
            for text, slot in contributor.slots.get(name, {}).items():
                _add(total, text, contributor.read(slot, shape.size))
        if shape.bounds is None:
            yield from ((text, values[0]) for text, values in total.items())
            return
        histogram = HISTOGRAMS[shape.kind]
        for text, values in total.items():
            yield text, histogram(shape.bounds, _whole(values[:-1]), values[-1])


def _add(total: dict[str, list[float]], text: str, values: list[float]) -> None:
    """Add one series to those of the same labels."""
    found = total.get(text)
    if found is None:
        total[text] = values
        return
    for index, value in enumerate(values):
        found[index] += value


def _whole(counts: Sequence[float]) -> list[int]:
    return [int(count) for count in counts]
