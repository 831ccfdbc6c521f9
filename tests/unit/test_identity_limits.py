"""Rate limits: a burst, then a rate; one client's flood is no other's."""

from hypothesis import given
from hypothesis import strategies as st

from components.identity import limits as module
from components.identity.limits import Bucket, Limits


def test_a_burst_then_a_rate() -> None:
    bucket = Bucket(rate=0.5, burst=3, level=3, at=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(1.9)
    assert bucket.take(2.1)
    assert [bucket.take(1_000.0) for _ in range(4)] == [True, True, True, False]


def test_clients_have_buckets_of_their_own() -> None:
    limits = Limits(0.5, 2, 100, 100, 0.0)
    assert [limits.take_client("flood", 0.0) for _ in range(3)] == [True, True, False]
    assert limits.take_client("other", 0.0)


def test_the_total_holds_for_all() -> None:
    limits = Limits(1, 1, 1, 2, 0.0)
    assert [limits.take_total(0.0) for _ in range(3)] == [True, True, False]


def test_remembered_clients_are_bounded(monkeypatch: object) -> None:
    limits = Limits(0.5, 1, 1, 1, 0.0)
    limits.take_client("first", 0.0)
    for number in range(module.MAX_CLIENTS):
        limits.take_client(number, 0.0)
    assert repr(limits).startswith(f"Limits({module.MAX_CLIENTS} clients")
    assert limits.take_client("first", 0.0), "forgotten, it starts anew"


@given(st.lists(st.floats(0, 2), max_size=200))
def test_no_pattern_of_asking_gets_more_than_burst_plus_rate(gaps: list[float]) -> None:
    bucket = Bucket(rate=2, burst=5, level=5, at=0.0)
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
    assert taken <= 5 + 2 * now + 1e-6
