"""Leases: who may take one is decided by what was seen, by no clock of others; the work runs in one place at a time."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator

import pytest

from components.kube import leader as module
from components.kube.leader import LEASE_SECONDS, Leader, LeaseSpec, Seen, may_take, next_spec, observe
from tests.kit.fake_api import FakeApi, eventually

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
THEIRS = LeaseSpec(holder_identity="them", lease_duration_seconds=15, renew_time="t1", lease_transitions=3)


def test_a_lease_is_taken_over_only_after_its_whole_duration_without_change() -> None:
    seen = observe(None, THEIRS, 100.0)
    assert not may_take(seen, THEIRS, "me", 100.0 + LEASE_SECONDS)
    assert may_take(seen, THEIRS, "me", 100.1 + LEASE_SECONDS)


def test_a_renewal_starts_the_waiting_anew() -> None:
    seen = observe(None, THEIRS, 100.0)
    renewed = LeaseSpec(holder_identity="them", lease_duration_seconds=15, renew_time="t2")
    assert observe(seen, THEIRS, 110.0) is seen
    assert observe(seen, renewed, 110.0) == Seen("them", "t2", 110.0)
    assert not may_take(observe(seen, renewed, 110.0), renewed, "me", 116.0)


def test_a_free_lease_and_our_own_are_taken_at_once() -> None:
    assert may_take(Seen(None, None, 0), LeaseSpec(), "me", 0)
    assert may_take(Seen("", None, 0), LeaseSpec(holder_identity=""), "me", 0)
    assert may_take(Seen("me", "t", 0), LeaseSpec(holder_identity="me"), "me", 0)


def test_transitions_count_changes_of_hands() -> None:
    mine = next_spec(THEIRS, "me", NOON)
    assert (mine.holder_identity, mine.lease_transitions, mine.acquire_time) == ("me", 4, "2026-01-01T12:00:00.000000Z")
    again = next_spec(mine, "me", NOON + datetime.timedelta(seconds=2))
    assert (again.lease_transitions, again.acquire_time) == (4, mine.acquire_time)
    assert again.renew_time == "2026-01-01T12:00:02.000000Z"


class Candidate:
    """A replica that counts its work."""

    def __init__(self, api: FakeApi, name: str) -> None:
        self.working = False
        self.starts = 0
        self.error: Exception | None = None
        self.leader = Leader(api.kube(), "lease", "tulle", name, self._work)

    async def _work(self) -> None:
        self.starts += 1
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.working = True
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False


@contextlib.asynccontextmanager
async def running(candidate: Candidate) -> AsyncIterator[None]:
    task = asyncio.ensure_future(candidate.leader.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "RENEW_WITHIN", 0.1)


async def test_one_leads_and_the_other_follows_when_it_goes() -> None:
    api = FakeApi()
    one, other = Candidate(api, "one"), Candidate(api, "other")
    async with running(one):
        await eventually("one leads", lambda: one.working)
        async with running(other):
            await asyncio.sleep(0.05)
            assert not other.working
    assert not one.working
    async with running(other):
        # The lease was given back, so that nobody waits 15 s for it.
        await eventually("the other leads", lambda: other.working, 1)


async def test_a_leader_whose_lease_was_taken_stops_working() -> None:
    api = FakeApi()
    one = Candidate(api, "one")
    async with running(one):
        await eventually("one leads", lambda: one.working)
        lease = api.get("leases", "lease", "tulle")
        assert lease is not None
        lease["spec"]["holderIdentity"] = "other"
        await eventually("one stops", lambda: not one.working)


async def test_a_leader_that_cannot_renew_stops_before_anybody_else_may_start() -> None:
    api = FakeApi()
    one = Candidate(api, "one")
    async with running(one):
        await eventually("one leads", lambda: one.working)
        api.fail = [503] * 3
        await eventually("failures", lambda: not api.fail)
        assert one.working, "a short outage is sat through"
        api.fail = [503] * 1000
        await eventually("one stops", lambda: not one.working)
        api.fail = []
        await eventually("one leads again", lambda: one.working)


async def test_work_that_fails_is_started_again() -> None:
    one = Candidate(FakeApi(), "one")
    one.error = RuntimeError("boom")
    async with running(one):
        await eventually("the second start", lambda: one.working and one.starts == 2)
