"""The publisher: one computation for all who watch, bounded waiting, and repairs of what was never notified."""

import asyncio

import pytest

from components.destination import publisher as module
from components.destination.index import Address, Index
from components.destination.model import ServiceFacts, SliceFacts
from components.destination.ports import EMPTY
from components.destination.publisher import Publisher, Subscription
from proxy.api import destination_pb2 as pb
from tests.kit.facts import endpoint, endpoint_slice, service

VIP: Address = ("10.1.0.1", 80)
WEB = service("web", "10.1.0.1", (80, "http"))


class Desk:
    """A publisher over a Service whose endpoints change."""

    def __init__(self) -> None:
        self.index = Index("cluster.local", EMPTY)
        self.publisher = Publisher(self.index)
        self.slice: SliceFacts | None = None

    def serve(self, web: ServiceFacts | None) -> None:
        self.publisher.mark(self.index.apply_service(None if web else WEB, web))

    def endpoints(self, *ips: str, tell: bool = True) -> None:
        new = endpoint_slice("s", "web", *(endpoint(ip) for ip in ips))
        touched = self.index.apply_slice(self.slice, new)
        self.slice = new
        if tell:
            self.publisher.mark(touched)


async def take(subscription: Subscription) -> list[pb.Update]:
    async with asyncio.timeout(2):
        messages = await subscription.take()
    assert messages is not None
    return [pb.Update.FromString(each) for each in messages]


def addresses(message: pb.Update) -> list[str]:
    return [each.address for each in message.snapshot.endpoints or message.delta.upsert]


@pytest.fixture
def desk() -> Desk:
    found = Desk()
    found.index.apply_service(None, WEB)
    found.endpoints("10.0.0.1", tell=False)
    return found


async def test_a_snapshot_then_deltas(desk: Desk) -> None:
    subscription = desk.publisher.subscribe(VIP)
    (first,) = await take(subscription)
    assert first.WhichOneof("kind") == "snapshot"
    assert addresses(first) == ["10.0.0.1:8080"]
    desk.endpoints("10.0.0.1", "10.0.0.2")
    (second,) = await take(subscription)
    assert second.WhichOneof("kind") == "delta"
    assert addresses(second) == ["10.0.0.2:8080"]


async def test_changes_are_gathered_into_one_message(desk: Desk) -> None:
    subscription = desk.publisher.subscribe(VIP)
    await take(subscription)
    for last in range(2, 30):
        desk.endpoints(*(f"10.0.0.{number}" for number in range(1, last)))
    (message,) = await take(subscription)
    assert len(message.delta.upsert) == 27


async def test_a_change_and_its_undoing_tell_nobody(desk: Desk) -> None:
    subscription = desk.publisher.subscribe(VIP)
    await take(subscription)
    desk.endpoints("10.0.0.1", "10.0.0.2")
    desk.endpoints("10.0.0.1")
    desk.publisher.flush()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await subscription.take()


async def test_a_thousand_watchers_cost_one_computation(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0
    view = desk.index.view

    def counting(address: Address) -> object:
        nonlocal computed
        computed += 1
        return view(address)

    monkeypatch.setattr(desk.index, "view", counting)
    subscriptions = [desk.publisher.subscribe(VIP) for _ in range(1000)]
    for each in subscriptions:
        await take(each)
    desk.endpoints("10.0.0.1", "10.0.0.2")
    desk.publisher.flush()
    received = [(await each.take() or [b""])[0] for each in subscriptions]
    assert computed == 2
    assert len({id(message) for message in received}) == 1, "serialised once"
    assert repr(desk.publisher) == "Publisher(1 targets, 1000 watches, 0 to recompute)"


async def test_a_node_local_service_is_told_to_each_node_for_itself(desk: Desk) -> None:
    local = service("web", "10.1.0.1", (80, "http"), policy="Local")
    one, other = desk.publisher.subscribe(VIP, "node-1"), desk.publisher.subscribe(VIP, "node-2")
    for each in (one, other):
        assert addresses((await take(each))[0]) == ["10.0.0.1:8080"]
    desk.publisher.mark(desk.index.apply_service(WEB, local))
    both = endpoint_slice("s", "web", endpoint("10.0.0.1", node="node-1"), endpoint("10.0.0.2", node="node-2"))
    desk.publisher.mark(desk.index.apply_slice(desk.slice, both))
    assert list((await take(one))[0].delta.remove) == []
    (message,) = await take(other)
    assert addresses(message) == ["10.0.0.2:8080"]
    assert list(message.delta.remove) == ["10.0.0.1:8080"]
    assert addresses((await take(desk.publisher.subscribe(VIP, "node-2")))[0]) == ["10.0.0.2:8080"]
    assert addresses((await take(desk.publisher.subscribe(VIP, "node-3")))[0]) == []


async def test_a_late_subscriber_gets_the_latest_state(desk: Desk) -> None:
    desk.publisher.subscribe(VIP)
    desk.endpoints("10.0.0.7")
    desk.publisher.flush()
    (message,) = await take(desk.publisher.subscribe(VIP))
    assert addresses(message) == ["10.0.0.7:8080"]


async def test_a_stream_too_slow_starts_over_from_a_snapshot(desk: Desk) -> None:
    subscription = desk.publisher.subscribe(VIP)
    await take(subscription)
    for number in range(module.MAX_PENDING + 5):
        desk.endpoints(f"10.0.1.{number}")
        desk.publisher.flush()
    (message,) = await take(subscription)
    assert message.WhichOneof("kind") == "snapshot"
    assert addresses(message) == [f"10.0.1.{module.MAX_PENDING + 4}:8080"]
    desk.endpoints("10.0.2.1")
    (message,) = await take(subscription)
    assert message.WhichOneof("kind") == "delta"


async def test_a_target_without_watchers_is_let_go(desk: Desk) -> None:
    one, other = desk.publisher.subscribe(VIP), desk.publisher.subscribe(VIP)
    desk.publisher.unsubscribe(VIP, one)
    assert "1 watched" in repr(desk.index)
    desk.publisher.unsubscribe(VIP, other)
    assert "0 watched" in repr(desk.index)
    desk.publisher.mark({VIP})
    desk.publisher.flush()


async def test_the_audit_puts_right_what_was_never_notified(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AUDIT_SECONDS", 0.01)
    subscription = desk.publisher.subscribe(VIP)
    await take(subscription)
    desk.endpoints("10.0.0.9", tell=False)
    task = asyncio.ensure_future(desk.publisher.audit())
    (message,) = await take(subscription)
    task.cancel()
    assert addresses(message) == ["10.0.0.9:8080"]


async def test_closing_ends_every_stream_and_those_that_come_late(desk: Desk) -> None:
    subscription = desk.publisher.subscribe(VIP)
    await take(subscription)
    desk.publisher.close()
    assert await subscription.take() is None
    assert await desk.publisher.subscribe(VIP).take() is None
