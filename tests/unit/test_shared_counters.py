"""Counters of several processes as one set: what one writes down, what the sum says, what outlives whom."""

import mmap
from collections.abc import Iterable

import pytest

from proxy.telemetry.exposition import Family, Histogram
from proxy.telemetry.shared import MAX_ENDED, Contributor, Ledger, Message, Publisher

BOUNDS = (1.0, 10.0)
HEADER = 8


class Pair:
    """One process and what the other knows of it; messages arrive when they are delivered."""

    def __init__(self, ledger: Ledger, size: int = 65536) -> None:
        self.ledger = ledger
        memory = mmap.mmap(-1, size)
        self.memory = memory
        self.told: list[Message] = []
        self.publisher = Publisher(memory, HEADER, self.told.append)
        self.contributor = Contributor(memory)
        ledger.add(self.contributor)

    def publish(self, *families: Family, now_ns: int = 0, deliver: bool = True) -> None:
        for _ in self.publisher.publish(families):
            pass
        if deliver:
            self.deliver(now_ns)

    def deliver(self, now_ns: int = 0) -> None:
        while self.told:
            message = self.told.pop(0)
            if message["kind"] == "series":
                self.ledger.series(self.contributor, message)
            else:
                self.ledger.forgotten(self.contributor, message, now_ns)
                self.publisher.freed(message["number"])


def counter(name: str = "a_total", kind: str = "counter", /, **values: float) -> Family:
    return Family(name, kind, "Help.", [(f'l="{label}"', value) for label, value in values.items()])


def histogram(counts: Iterable[int], total: float) -> Family:
    return Family("h", "histogram", "Help.", [('l="x"', Histogram(BOUNDS, list(counts), total))])


def shown(ledger: Ledger, name: str = "a_total", own: Iterable[Family] = ()) -> dict[object, object]:
    return {text: value for family in ledger.families(own) if family.name == name for text, value in family.samples}


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_the_sum_is_by_family_and_labels(ledger: Ledger) -> None:
    first, second = Pair(ledger), Pair(ledger)
    first.publish(counter(x=1, y=2), histogram([1, 2, 3], 0.5))
    second.publish(counter(x=10, z=5), histogram([10, 0, 1], 1.5))
    own = [counter(x=100, own=1), counter("b_total", x=7)]
    assert shown(ledger, own=own) == {'l="x"': 111, 'l="y"': 2, 'l="z"': 5, 'l="own"': 1}
    assert shown(ledger, "h") == {'l="x"': Histogram(BOUNDS, [11, 2, 4], 2.0)}
    assert shown(ledger, "b_total", own) == {'l="x"': 7}


def test_what_is_written_needs_no_message_but_the_first(ledger: Ledger) -> None:
    pair = Pair(ledger)
    pair.publish(counter(x=1))
    pair.publish(counter(x=2), deliver=False)
    assert not pair.told
    assert shown(ledger) == {'l="x"': 2}


def test_the_counters_of_a_process_outlive_it(ledger: Ledger) -> None:
    first, second = Pair(ledger), Pair(ledger)
    first.publish(counter(x=1, y=2), counter("g", "gauge", x=4), histogram([1, 0, 0], 1))
    second.publish(counter(x=10), counter("g", "gauge", x=3))
    ledger.remove(first.contributor, 0)
    assert shown(ledger) == {'l="x"': 11, 'l="y"': 2}
    assert shown(ledger, "h") == {'l="x"': Histogram(BOUNDS, [1, 0, 0], 1)}
    assert shown(ledger, "g") == {'l="x"': 3}, "what was open in a process ended with it"
    third = Pair(ledger)
    third.publish(counter(x=1))
    assert shown(ledger) == {'l="x"': 12, 'l="y"': 2}


def test_what_nobody_counts_any_more_is_forgotten_in_the_end(ledger: Ledger) -> None:
    first, second = Pair(ledger), Pair(ledger)
    first.publish(counter(x=1, y=2))
    second.publish(counter(x=10))
    ledger.remove(first.contributor, 1_000)
    assert ledger.drop_idle(2_000, 1_000) == 0
    assert ledger.drop_idle(2_001, 1_000) == 1
    assert shown(ledger) == {'l="x"': 11}, "the other still counts under it: a sum must not shrink"
    second.publish(counter(), now_ns=3_000)
    assert shown(ledger) == {'l="x"': 11}
    assert ledger.drop_idle(4_001, 1_000) == 1
    assert shown(ledger) == {}


def test_slots_are_used_again_only_after_they_were_read(ledger: Ledger) -> None:
    pair = Pair(ledger)
    pair.publish(counter(x=5))
    pair.publish(counter(y=7), deliver=False)
    pair.publish(counter(y=7, z=9), deliver=False)
    pair.deliver()
    assert shown(ledger) == {'l="x"': 5, 'l="y"': 7, 'l="z"': 9}
    used = sum(len(slots) for slots in pair.contributor.slots.values())
    pair.publish(counter(y=7, z=9, more=1))
    assert shown(ledger) == {'l="x"': 5, 'l="y"': 7, 'l="z"': 9, 'l="more"': 1}
    slots = sorted(pair.contributor.slots["a_total"].values())
    assert slots == [HEADER, HEADER + 1, HEADER + 2], "the slot of x was not used again"
    assert used == 2


def test_a_series_that_comes_back_begins_anew_and_is_added(ledger: Ledger) -> None:
    pair = Pair(ledger)
    pair.publish(counter(x=5))
    pair.publish(counter())
    pair.publish(counter(x=1))
    assert shown(ledger) == {'l="x"': 6}


def test_what_finds_no_room_is_told(ledger: Ledger) -> None:
    pair = Pair(ledger, 4096)
    pair.publish(counter(**{f"l{number}": number for number in range(600)}))
    assert pair.publisher.left_out == 600 - (4096 // 8 - HEADER)
    assert len(shown(ledger)) == 4096 // 8 - HEADER


def test_ended_processes_cannot_fill_memory(ledger: Ledger) -> None:
    for life in range(3):
        pair = Pair(ledger, 1 << 20)
        pair.publish(counter(**{f"l{life}-{number}": 1 for number in range(MAX_ENDED // 2)}))
        ledger.remove(pair.contributor, life)
    assert len(shown(ledger)) == MAX_ENDED
    assert 'l="l0-0"' not in shown(ledger)
    assert 'l="l2-0"' in shown(ledger)


def test_long_rounds_let_others_work(ledger: Ledger) -> None:
    pair = Pair(ledger, 1 << 20)
    family = counter(**{f"l{number}": number for number in range(5_000)})
    assert len(list(pair.publisher.publish([family]))) >= 9
    pair.deliver()
    assert sum(float(str(value)) for value in shown(ledger).values()) == sum(range(5_000))
