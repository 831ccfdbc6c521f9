"""Discovery: one watch per original destination, turned into changes that a balancer can apply as they are.

Fail static: what is known stays known when the stream or the whole control plane is lost. The first snapshot after a
reconnect replaces everything, and is handed on as the difference to what was known, so that endpoints that stayed
keep their latency history and their pooled connections. Which endpoint a request takes is not decided here.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.control import messages
from proxy.control.backoff import Backoff
from proxy.control.cells import Cell
from proxy.control.messages import Delta, Endpoint, MessageError, Snapshot, Target
from proxy.telemetry.log import Log
from proxy.wire import grpc

PATH: Final = "/tulle.destination.v1.Destination/Watch"
REFUSED_CAP: Final = 30.0
"""Seconds at most between two tries after the server refused the question itself: the answer will hardly change."""
_REFUSALS: Final = (grpc.INVALID_ARGUMENT, grpc.PERMISSION_DENIED, grpc.UNAUTHENTICATED)


class StreamClient(Protocol):
    """The part of ControlClient that discovery uses."""

    @property
    def is_connected(self) -> bool: ...

    async def answers(self) -> bool: ...

    def stream(self, path: str, message: bytes) -> AsyncGenerator[bytes, None]: ...


class Consumer(Protocol):
    """Who is told. Called on the loop, one call at a time, never after `Watch.close`."""

    def changed(self, target: Target, upserted: list[Endpoint], removed: list[str]) -> None:
        """The first call brings everything; each later one what is new or different, and what is gone (addresses)."""

    def failed(self, status: grpc.Status) -> None:
        """An attempt failed while nothing is known yet; attempts go on. Never called once `changed` was."""


@dataclass(frozen=True, slots=True)
class State:
    """All that is known of one destination."""

    target: Target
    endpoints: Mapping[str, Endpoint]


def applied(state: State | None, update: Snapshot | Delta) -> State:
    """The state after an update; raises MessageError, and then the old state stands."""
    if isinstance(update, Snapshot):
        return State(update.target, {endpoint.address: endpoint for endpoint in update.endpoints})
    if state is None:
        raise MessageError("a delta before the first snapshot")
    endpoints = dict(state.endpoints)
    for address in update.remove:
        endpoints.pop(address, None)
    endpoints.update((endpoint.address, endpoint) for endpoint in update.upsert)
    return State(state.target, endpoints)


def difference(old: State | None, new: State) -> tuple[list[Endpoint], list[str]]:
    """What is new or different, and the addresses that are gone."""
    before: Mapping[str, Endpoint] = {} if old is None else old.endpoints
    upserted = [endpoint for address, endpoint in new.endpoints.items() if before.get(address) != endpoint]
    return upserted, [address for address in before if address not in new.endpoints]


class Watch:
    """One destination being watched."""

    __slots__ = ("_consumer", "_request", "_task", "address", "state")

    def __init__(self, address: str, request: bytes, consumer: Consumer) -> None:
        self.address = address
        self.state: State | None = None
        self._request = request
        self._consumer = consumer
        self._task: asyncio.Task[None] | None = None

    def start(self, client: StreamClient, log: Log, make_backoff: Callable[[], Backoff]) -> None:
        """Begin; `close` ends it."""
        self._task = asyncio.get_running_loop().create_task(self._run(client, log, make_backoff()))

    def close(self) -> None:
        """Stop watching: no call to the consumer comes after this one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, client: StreamClient, log: Log, backoff: Backoff) -> None:
        refused = Backoff(base=1.0, cap=REFUSED_CAP)
        while True:
            status = grpc.Status(grpc.OK)
            try:
                await self._follow(client, backoff)
            except grpc.CallError as error:
                status = error.status
            except MessageError as error:
                status = grpc.Status(grpc.INTERNAL, str(error))
            if status.code not in (grpc.OK, grpc.UNAVAILABLE):
                log.limited(
                    "watch", "discovery failed", destination=self.address, status=status.name, why=status.message
                )
            if self.state is None:
                self._consumer.failed(status)
            await asyncio.sleep((refused if status.code in _REFUSALS else backoff).delay())

    async def _follow(self, client: StreamClient, backoff: Backoff) -> None:
        """One stream from its snapshot to its end."""
        is_first = True
        async with aclosing(client.stream(PATH, self._request)) as stream:
            async for message in stream:
                new = applied(None if is_first else self.state, messages.update(message))
                is_first = False
                backoff.reset()
                self._publish(new)

    def _publish(self, new: State) -> None:
        old, self.state = self.state, new
        upserted, removed = difference(old, new)
        if old is None or upserted or removed or old.target != new.target:
            self._consumer.changed(new.target, upserted, removed)

    def statistics(self) -> dict[str, object]:
        """For the admin page and tests."""
        count = None if self.state is None else len(self.state.endpoints)
        return {"address": self.address, "endpoints": count}


class Destination:
    """Discovery for one pod. Every watch is a stream of the same connection."""

    def __init__(
        self,
        client: StreamClient,
        *,
        namespace: str,
        pod: str,
        node: str,
        log: Log,
        make_backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._client = client
        self._workload = (namespace, pod, node)
        self._log = log
        self._make_backoff = make_backoff

    @property
    def is_connected(self) -> bool:
        """Whether the control plane can be asked now: what is given up while it cannot is not had back."""
        return self._client.is_connected

    async def answers(self) -> bool:
        """The same, made sure of: a node that has vanished does not say so, and what is dropped then is lost."""
        return await self._client.answers()

    def watch(self, address: str, consumer: Consumer) -> Watch:
        """Watch an original destination (`10.96.0.10:80`, `[fd00::10]:80`) until the watch is closed."""
        watch = Watch(address, messages.watch_request(*self._workload, address), consumer)
        watch.start(self._client, self._log, self._make_backoff)
        return watch

    def watch_cell(self, address: str) -> tuple[Watch, Cell[State]]:
        """The same for who wants whole states rather than changes."""
        cell: Cell[State] = Cell()
        consumer = _CellConsumer(cell)
        watch = self.watch(address, consumer)
        consumer.watch = watch
        return watch, cell


class _CellConsumer:
    """Turns changes back into whole states."""

    def __init__(self, cell: Cell[State]) -> None:
        self._cell = cell
        self.watch: Watch | None = None

    def changed(self, target: Target, upserted: list[Endpoint], removed: list[str]) -> None:
        if self.watch is not None and self.watch.state is not None:
            self._cell.set(self.watch.state)

    def failed(self, status: grpc.Status) -> None:
        """A cell stays empty until something is known."""
