"""One leader among replicas by a Lease: does I/O around a pure decision. The leader writes, the others wait.

The algorithm is client-go's: a lease is taken over only when it was not seen to change for its whole duration, measured
by our own monotonic clock, so that clocks need not agree.
"""

import asyncio
import contextlib
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from components.kube.client import LEASES, Kube, KubeError

LEASE_SECONDS: Final = 15
"""A leader that says nothing for this long has lost the lease."""
RENEW_WITHIN: Final = 10.0
"""A leader that could not renew for this long stops writing, well before another may start."""
RETRY_SECONDS: Final = 2.0


class LeaseSpec(msgspec.Struct, rename="camel", omit_defaults=True):
    """The part of a Lease that counts."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct):
    """A Lease as it is read and written."""

    metadata: dict[str, Any]
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)
    apiVersion: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


@dataclass(frozen=True, slots=True)
class Seen:
    """When the lease's record was last seen to change, by our own clock."""

    holder: str | None
    renewed: str | None
    at: float


def observe(seen: Seen | None, spec: LeaseSpec, now: float) -> Seen:
    """What is known of the lease after reading it: pure."""
    if seen is not None and (seen.holder, seen.renewed) == (spec.holder_identity, spec.renew_time):
        return seen
    return Seen(spec.holder_identity, spec.renew_time, now)


def may_take(seen: Seen, spec: LeaseSpec, me: str, now: float) -> bool:
    """Whether the lease is ours, free, or forsaken: pure."""
    if not spec.holder_identity or spec.holder_identity == me:
        return True
    return now - seen.at > (spec.lease_duration_seconds or LEASE_SECONDS)


def next_spec(spec: LeaseSpec, me: str, wall: datetime.datetime) -> LeaseSpec:
    """The record with which we take or keep the lease: pure."""
    stamp = wall.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    mine = spec.holder_identity == me
    transitions = spec.lease_transitions or 0
    return LeaseSpec(
        holder_identity=me,
        lease_duration_seconds=LEASE_SECONDS,
        acquire_time=spec.acquire_time if mine else stamp,
        renew_time=stamp,
        lease_transitions=transitions if mine or not spec.holder_identity else transitions + 1,
    )


class Leader:
    """Runs `work` while this process holds the lease, and cancels it when the lease is lost."""

    def __init__(self, kube: Kube, name: str, namespace: str, me: str, work: Callable[[], Awaitable[None]]) -> None:
        self._kube = kube
        self._name = name
        self._namespace = namespace
        self._me = me
        self._work = work
        self._seen: Seen | None = None
        self._log = structlog.get_logger().bind(lease=name, me=me)
        self.leading = False

    async def run(self) -> None:
        """Try for ever; on cancellation give the lease back so that another replica need not wait for it."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[None] | None = None
        renewed = 0.0
        try:
            while True:
                try:
                    held = await self._try()
                    if held:
                        renewed = loop.time()
                except KubeError as error:
                    # Whether the write went through is unknown: keep leading until the renewal deadline, no longer.
                    held = self.leading and loop.time() - renewed < RENEW_WITHIN
                    self._log.warning("lease_failed", error=str(error), leading=held)
                if held and (task is None or task.done()):
                    if task is not None and not task.cancelled() and task.exception() is not None:
                        self._log.error("leader_work_failed", error=repr(task.exception()))
                    self._log.info("leading")
                    task = asyncio.ensure_future(self._work())
                elif not held and task is not None:
                    self._log.info("no_longer_leading")
                    await _end(task)
                    task = None
                self.leading = held
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            if task is not None:
                await _end(task)
            if self.leading:
                self.leading = False
                with contextlib.suppress(KubeError, asyncio.CancelledError):
                    await self._release()

    async def _try(self) -> bool:
        now = asyncio.get_running_loop().time()
        wall = datetime.datetime.now(datetime.UTC)
        lease = await self._kube.find(LEASES, Lease, self._name, self._namespace)
        if lease is None:
            lease = Lease(metadata={"name": self._name, "namespace": self._namespace})
            lease.spec = next_spec(lease.spec, self._me, wall)
            return await self._write(lease, create=True)
        self._seen = observe(self._seen, lease.spec, now)
        if not may_take(self._seen, lease.spec, self._me, now):
            return False
        lease.spec = next_spec(lease.spec, self._me, wall)
        return await self._write(lease, create=False)

    async def _write(self, lease: Lease, *, create: bool) -> bool:
        try:
            if create:
                await self._kube.create(LEASES, lease, self._namespace)
            else:
                await self._kube.replace(LEASES, lease, self._name, self._namespace)
        except KubeError as error:
            if error.conflict:
                return False
            raise
        return True

    async def _release(self) -> None:
        lease = await self._kube.get(LEASES, Lease, self._name, self._namespace)
        if lease.spec.holder_identity == self._me:
            lease.spec = LeaseSpec(lease_duration_seconds=1, lease_transitions=lease.spec.lease_transitions)
            await self._write(lease, create=False)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
