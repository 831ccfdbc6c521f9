"""Discovery as its consumer sees it: everything once, then differences, and nothing taken away by a lost stream."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from proxy.api import destination_pb2 as api
from proxy.control.backoff import Backoff
from proxy.control.destination import PATH, Destination, applied, difference
from proxy.control.messages import Endpoint, MessageError, Target, update
from proxy.telemetry.log import Log
from proxy.wire import grpc

pytestmark = pytest.mark.asyncio


def endpoint(address: str, identity: str = "", opaque: bool = False, **labels: str) -> api.Endpoint:
    protocol = api.PROTOCOL_OPAQUE if opaque else api.PROTOCOL_DETECT
    return api.Endpoint(address=address, identity=identity, protocol=protocol, labels=labels)


def snapshot(*endpoints: api.Endpoint, kind: Any = api.KIND_SERVICE, **fields: Any) -> bytes:
    return api.Update(snapshot=api.Snapshot(kind=kind, endpoints=endpoints, **fields)).SerializeToString()


def delta(*upsert: api.Endpoint, remove: tuple[str, ...] = ()) -> bytes:
    return api.Update(delta=api.Delta(upsert=upsert, remove=remove)).SerializeToString()


class Script:
    """A control plane that says what the test writes into a queue for each stream."""

    is_connected = True

    async def answers(self) -> bool:
        return True

    def __init__(self) -> None:
        self.streams: list[asyncio.Queue[bytes | Exception | None]] = []
        self.requests: list[tuple[str, api.WatchRequest]] = []
        self.closed = 0

    async def stream(self, path: str, message: bytes) -> AsyncGenerator[bytes, None]:
        self.requests.append((path, api.WatchRequest.FromString(message)))
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.streams.append(queue)
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed += 1

    async def opened(self, number: int) -> "asyncio.Queue[bytes | Exception | None]":
        await until(lambda: len(self.streams) >= number)
        return self.streams[number - 1]


class Recorder:
    def __init__(self) -> None:
        self.changes: list[tuple[Target, list[str], list[str]]] = []
        self.failures: list[grpc.Status] = []

    def changed(self, target: Target, upserted: list[Endpoint], removed: list[str]) -> None:
        self.changes.append((target, [e.address for e in upserted], removed))

    def failed(self, status: grpc.Status) -> None:
        self.failures.append(status)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def discovery(script: Script) -> Destination:
    log = Log(write=lambda _: None)
    return Destination(
        script, namespace="demo", pod="web-1", node="n1", log=log, make_backoff=lambda: Backoff(0.001, 0.002)
    )


async def test_a_snapshot_then_deltas_arrive_as_changes() -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    stream = await script.opened(1)
    assert script.requests == [
        (
            PATH,
            api.WatchRequest(workload=api.Workload(namespace="demo", pod="web-1", node="n1"), address="10.96.0.10:80"),
        )
    ]
    stream.put_nowait(
        snapshot(
            endpoint("10.0.0.1:80", "a", zone="z"),
            endpoint("10.0.0.2:80"),
            authority="web:80",
            labels={"b": "2", "a": "1"},
        )
    )
    stream.put_nowait(delta(endpoint("[fd00::3]:80", opaque=True), remove=("10.0.0.2:80",)))
    await until(lambda: len(seen.changes) == 2)
    target = Target("service", False, "web:80", (("a", "1"), ("b", "2")))
    assert seen.changes == [
        (target, ["10.0.0.1:80", "10.0.0.2:80"], []),
        (target, ["[fd00::3]:80"], ["10.0.0.2:80"]),
    ]
    assert watch.state is not None
    assert watch.state.endpoints["[fd00::3]:80"] == Endpoint("[fd00::3]:80", "fd00::3", 80, "", True, ())
    assert watch.state.endpoints["10.0.0.1:80"].labels == (("zone", "z"),)
    watch.close()


async def test_a_lost_stream_takes_nothing_away_and_the_next_snapshot_is_a_difference() -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    (await script.opened(1)).put_nowait(snapshot(endpoint("10.0.0.1:80", "a"), endpoint("10.0.0.2:80", "a")))
    await until(lambda: len(seen.changes) == 1)
    script.streams[0].put_nowait(grpc.CallError(grpc.Status(grpc.UNAVAILABLE, "gone")))
    second = await script.opened(2)
    assert len(seen.changes) == 1
    assert seen.failures == []
    assert watch.state is not None
    assert set(watch.state.endpoints) == {"10.0.0.1:80", "10.0.0.2:80"}
    second.put_nowait(snapshot(endpoint("10.0.0.2:80", "a"), endpoint("10.0.0.3:80", "a")))
    await until(lambda: len(seen.changes) == 2)
    assert seen.changes[1][1:] == (["10.0.0.3:80"], ["10.0.0.1:80"])
    second.put_nowait(None)
    (await script.opened(3)).put_nowait(snapshot(endpoint("10.0.0.2:80", "a"), endpoint("10.0.0.3:80", "a")))
    await asyncio.sleep(0.02)
    assert len(seen.changes) == 2, "an equal snapshot is no change"
    watch.close()


async def test_failures_are_told_only_while_nothing_is_known() -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    denied = grpc.Status(grpc.UNAVAILABLE, "no")
    (await script.opened(1)).put_nowait(grpc.CallError(denied))
    (await script.opened(2)).put_nowait(snapshot(endpoint("10.0.0.1:80")))
    await until(lambda: len(seen.changes) == 1)
    script.streams[1].put_nowait(grpc.CallError(denied))
    await script.opened(3)
    assert seen.failures == [denied]
    watch.close()


async def test_a_refusal_is_not_asked_again_at_once() -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    (await script.opened(1)).put_nowait(grpc.CallError(grpc.Status(grpc.PERMISSION_DENIED, "not you")))
    await until(lambda: len(seen.failures) == 1)
    watch.close()


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xff",
        b"",
        delta(endpoint("10.0.0.1:80")),
        snapshot(endpoint("nowhere")),
        snapshot(kind=api.KIND_UNSPECIFIED),
    ],
    ids=["not protobuf", "neither", "delta first", "bad address", "bad kind"],
)
async def test_an_answer_that_cannot_be_applied_drops_the_stream_and_keeps_the_state(bad: bytes) -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    (await script.opened(1)).put_nowait(snapshot(endpoint("10.0.0.1:80")))
    await until(lambda: len(seen.changes) == 1)
    script.streams[0].put_nowait(None)
    (await script.opened(2)).put_nowait(bad)
    (await script.opened(3)).put_nowait(snapshot(endpoint("10.0.0.2:80")))
    await until(lambda: len(seen.changes) == 2)
    assert seen.changes[1][1:] == (["10.0.0.2:80"], ["10.0.0.1:80"])
    watch.close()


async def test_a_closed_watch_says_nothing_more() -> None:
    script, seen = Script(), Recorder()
    watch = discovery(script).watch("10.96.0.10:80", seen)
    stream = await script.opened(1)
    watch.close()
    watch.close()
    stream.put_nowait(snapshot(endpoint("10.0.0.1:80")))
    await until(lambda: script.closed == 1)
    assert seen.changes == []


async def test_whole_states_can_be_had_in_a_cell() -> None:
    script = Script()
    watch, cell = discovery(script).watch_cell("10.96.0.10:80")
    (await script.opened(1)).put_nowait(snapshot(endpoint("10.0.0.1:80")))
    assert set((await cell.first()).endpoints) == {"10.0.0.1:80"}
    script.streams[0].put_nowait(delta(remove=("10.0.0.1:80",)))
    assert not (await cell.changed(1)).endpoints
    watch.close()


async def test_an_endpoint_that_changes_its_identity_is_new() -> None:
    old = applied(None, update(snapshot(endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80"))))
    new = applied(old, update(delta(endpoint("10.0.0.1:80", "meshed"), endpoint("10.0.0.2:80"))))
    upserted, removed = difference(old, new)
    assert [(e.address, e.identity) for e in upserted] == [("10.0.0.1:80", "meshed")]
    assert removed == []
    assert set(old.endpoints.values()) != set(new.endpoints.values())


async def test_a_delta_needs_a_snapshot() -> None:
    with pytest.raises(MessageError, match="before the first snapshot"):
        applied(None, update(delta()))
