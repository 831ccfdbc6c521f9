"""From changes to streams: what is watched, and who is told. Runs on the event loop, does no I/O of its own.

Each watched address is one target, however many proxies watch it: its view is computed once, its message serialised
once. Changes are gathered for a few milliseconds, so that a rolling Deployment costs a handful of messages, not
hundreds.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from components.destination import translate
from components.destination.index import Address, Index, View

GATHER_SECONDS: Final = 0.02
MAX_PENDING: Final = 32
"""Messages kept for a stream that reads slowly; beyond this it gets one snapshot instead, which is the same and
bounded.
"""
AUDIT_SECONDS: Final = 60.0
"""How often every view is computed anew: a notification that touched a target without our knowing is put right, and
logged.
"""

WATCHES = Gauge("tulle_destination_watches", "Open Watch streams")
TARGETS = Gauge("tulle_destination_targets", "Addresses watched by at least one stream")
UPDATES = Counter("tulle_destination_updates_total", "Updates computed for targets", ["kind"])
SENT = Counter("tulle_destination_messages_total", "Updates handed to streams")
AUDITS = Counter("tulle_destination_audit_repairs_total", "Views that an audit had to put right")
FLUSH = Histogram(
    "tulle_destination_flush_seconds",
    "Time to compute and hand out one round of changes",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)


class Subscription:
    """One stream's place: messages wait here until the stream takes them."""

    def __init__(self, target: "_Target", node: str) -> None:
        self.target = target
        self.node = node
        self._pending: deque[bytes] = deque()
        self._whole = True
        self._closed = False
        self._wake = asyncio.Event()
        self._wake.set()

    def push(self, message: bytes) -> None:
        """Add a message; a stream too far behind starts over from a snapshot."""
        if not self._whole:
            self._pending.append(message)
            if len(self._pending) > MAX_PENDING:
                self._pending.clear()
                self._whole = True
        self._wake.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._wake.set()

    async def take(self) -> list[bytes] | None:
        """The next messages, a snapshot first; None at the end."""
        await self._wake.wait()
        if self._closed:
            return None
        self._wake.clear()
        if self._whole:
            self._whole = False
            return [self.target.snapshot(self.node)]
        messages = list(self._pending)
        self._pending.clear()
        return messages


class _Target:
    """A watched address and its streams."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.subscriptions: set[Subscription] = set()
        self._snapshots: dict[str, bytes] = {}

    def snapshot(self, node: str) -> bytes:
        """The whole, as a node sees it: for nearly every target that is the same for all, and serialised once."""
        key = node if self.view.local else ""
        if key not in self._snapshots:
            self._snapshots[key] = translate.snapshot(self.view.on(node)).SerializeToString()
        return self._snapshots[key]

    def move_to(self, view: View) -> int:
        """Take on another view and tell who watches; returns how many were told."""
        old, told = self.view, 0
        if old == view:
            return 0
        self.view = view
        self._snapshots = {}
        by_node: dict[str, list[Subscription]] = {}
        for each in self.subscriptions:
            by_node.setdefault(each.node if view.local or old.local else "", []).append(each)
        for node, subscriptions in by_node.items():
            update = translate.update(old.on(node), view.on(node))
            if update is None:
                continue
            UPDATES.labels(update.WhichOneof("kind") or "").inc()
            message = update.SerializeToString()
            for each in subscriptions:
                each.push(message)
            told += len(subscriptions)
        return told


class Publisher:
    """All targets."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._targets: dict[Address, _Target] = {}
        self._dirty: set[Address] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._log = structlog.get_logger()
        self.watches = 0

    def __repr__(self) -> str:
        return f"Publisher({len(self._targets)} targets, {self.watches} watches, {len(self._dirty)} to recompute)"

    def subscribe(self, address: Address, node: str = "") -> Subscription:
        """Open a stream's place, for a caller on a node."""
        target = self._targets.get(address)
        if target is None:
            self._index.watch(address)
            target = self._targets[address] = _Target(self._index.view(address))
            TARGETS.set(len(self._targets))
        subscription = Subscription(target, node)
        target.subscriptions.add(subscription)
        self.watches += 1
        WATCHES.set(self.watches)
        if self._closed:
            subscription.close()
        return subscription

    def unsubscribe(self, address: Address, subscription: Subscription) -> None:
        """Give it up; the last one lets the target go."""
        target = self._targets[address]
        target.subscriptions.discard(subscription)
        if not target.subscriptions:
            del self._targets[address]
            self._index.unwatch(address)
            TARGETS.set(len(self._targets))
        self.watches -= 1
        WATCHES.set(self.watches)

    def mark(self, addresses: Iterable[Address]) -> None:
        """These may have changed: compute them anew, soon and together."""
        self._dirty.update(addresses)
        if self._dirty and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)

    def flush(self) -> None:
        """Compute what is marked and hand out what differs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dirty, self._dirty = self._dirty, set()
        with FLUSH.time():
            for address in dirty:
                self._refresh(address)

    def _refresh(self, address: Address) -> bool:
        target = self._targets.get(address)
        told = target.move_to(self._index.view(address)) if target is not None else 0
        SENT.inc(told)
        return told > 0

    async def audit(self) -> None:
        """Compute everything anew, for ever, in small portions."""
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            self.flush()
            for number, address in enumerate(list(self._targets)):
                if address not in self._dirty and self._refresh(address):
                    AUDITS.inc()
                    self._log.error("audit_repair", address=address)
                if number % 50 == 49:
                    await asyncio.sleep(0)

    def close(self) -> None:
        """End every stream, so that proxies go to another replica."""
        self._closed = True
        for target in self._targets.values():
            for subscription in target.subscriptions:
                subscription.close()
