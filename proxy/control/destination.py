"""Discovery: one watch per original destination, turned into changes that a balancer can apply as they are.

Fail static: what is known stays known when the stream or the whole control plane is lost. The first snapshot after a
reconnect replaces everything, and is handed on as the difference to what was known, so that endpoints that stayed keep their
latency history and their pooled connections. Which endpoint a request takes is not decided here.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from proxy.api import destination_pb2 as api
from proxy.control.backoff import Backoff
from proxy.control.cells import Cell
from proxy.settings import address as parse_address
from proxy.telemetry.log import Log
from proxy.wire import grpc

PATH: Final = "/tulle.destination.v1.Destination/Watch"
REFUSED_CAP: Final = 30.0
"""Seconds at most between two tries after the server refused the question itself: the answer will hardly change."""
_REFUSALS: Final = (grpc.INVALID_ARGUMENT, grpc.PERMISSION_DENIED, grpc.UNAUTHENTICATED)

SERVICE: Final = "service"
POD: Final = "pod"
EXTERNAL: Final = "external"
_KINDS: Final = {api.KIND_SERVICE: SERVICE, api.KIND_POD: POD, api.KIND_EXTERNAL: EXTERNAL}

Labels = tuple[tuple[str, str], ...]


class StreamClient(Protocol):
    """The part of ControlClient that discovery uses."""

    def stream(self, path: str, message: bytes) -> AsyncGenerator[bytes, None]: ...


class InvalidUpdateError(ValueError):
    """An answer that cannot be applied: the stream is dropped and asked again, what is known stays."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to send to. Equal endpoints need no new connection."""

    address: str
    host: str
    port: int
    identity: str
    """The identity to require; empty where the endpoint is outside the mesh and takes plaintext."""
    is_opaque: bool
    labels: Labels
    """Sorted by name, without the `dst_` prefix."""


@dataclass(frozen=True, slots=True)
class Target:
    """What stands behind an original destination, endpoints apart."""

    kind: str
    is_opaque: bool
    authority: str
    labels: Labels


class Consumer(Protocol):
    """Who is told. Called on the loop, one call at a time, never after `Watch.close`."""

    def changed(self, target: Target, upserted: list[Endpoint], removed: list[str]) -> None:
        """The first call brings everything; each later one what is new or different, and the addresses that are gone."""

    def failed(self, status: grpc.Status) -> None:
        """An attempt failed while nothing is known yet; attempts go on. Never called once `changed` was."""


@dataclass(frozen=True, slots=True)
class State:
    """All that is known of one destination."""

    target: Target
    endpoints: Mapping[str, Endpoint]


def endpoint_from(message: api.Endpoint) -> Endpoint:
    """One endpoint as the wire has it; raises InvalidUpdateError."""
    try:
        host, port = parse_address(message.address)
    except ValueError as error:
        raise InvalidUpdateError(f"endpoint {message.address!r}: {error}") from error
    return Endpoint(
        address=message.address,
        host=host,
        port=port,
        identity=message.identity,
        is_opaque=message.protocol == api.PROTOCOL_OPAQUE,
        labels=tuple(sorted(message.labels.items())),
    )


def applied(state: State | None, update: api.Update) -> State:
    """The state after an update; raises InvalidUpdateError, and then the old state stands."""
    match update.WhichOneof("kind"):
        case "snapshot":
            snapshot = update.snapshot
            kind = _KINDS.get(snapshot.kind)
            if kind is None:
                raise InvalidUpdateError(f"unknown kind {snapshot.kind}")
            target = Target(
                kind=kind,
                is_opaque=snapshot.protocol == api.PROTOCOL_OPAQUE,
                authority=snapshot.authority,
                labels=tuple(sorted(snapshot.labels.items())),
            )
            return State(target, {e.address: endpoint_from(e) for e in snapshot.endpoints})
        case "delta":
            if state is None:
                raise InvalidUpdateError("a delta before the first snapshot")
            endpoints = dict(state.endpoints)
            for address in update.delta.remove:
                endpoints.pop(address, None)
            endpoints.update((e.address, endpoint_from(e)) for e in update.delta.upsert)
            return State(state.target, endpoints)
        case _:
            raise InvalidUpdateError("an update that is neither snapshot nor delta")


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
            except (InvalidUpdateError, DecodeError) as error:
                status = grpc.Status(grpc.INTERNAL, str(error))
            if status.code not in (grpc.OK, grpc.UNAVAILABLE):
                log.limited("watch", "discovery failed", destination=self.address, status=status.name, why=status.message)
            if self.state is None:
                self._consumer.failed(status)
            await asyncio.sleep((refused if status.code in _REFUSALS else backoff).delay())

    async def _follow(self, client: StreamClient, backoff: Backoff) -> None:
        """One stream from its snapshot to its end."""
        is_first = True
        async with aclosing(client.stream(PATH, self._request)) as messages:
            async for message in messages:
                update = api.Update.FromString(message)
                new = applied(None if is_first else self.state, update)
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
        self._workload = api.Workload(namespace=namespace, pod=pod, node=node)
        self._log = log
        self._make_backoff = make_backoff

    def watch(self, address: str, consumer: Consumer) -> Watch:
        """Watch an original destination (`10.96.0.10:80`, `[fd00::10]:80`) until the watch is closed."""
        request = api.WatchRequest(workload=self._workload, address=address).SerializeToString()
        watch = Watch(address, request, consumer)
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
