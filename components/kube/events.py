"""Events on other people's objects: does I/O, and never fails its caller. The same event is written once and then
counted.
"""

import asyncio
import datetime
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from components.kube.client import EVENTS, Kube, KubeError

REPEAT_SECONDS: Final = 60.0
"""The same event is brought up to date at most this often: a ReplicaSet retries a refused pod many times a minute."""
REMEMBERED: Final = 2_000
"""How many different events are remembered, so that a cluster full of refusals costs bounded memory."""
WAITING: Final = 200
"""Events waiting to be written; more are dropped and counted, since a slow API server must not hold up admission."""
MAX_MESSAGE: Final = 1_000
"""The API server refuses messages of more than 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The object that an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    first: str
    written: float


class Recorder:
    """Writes events in the background, in order."""

    def __init__(self, kube: Kube, component: str) -> None:
        self._kube = kube
        self._component = component
        self._known: OrderedDict[tuple[Reference, str, str], _Known] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Reference, str, str, str]] = asyncio.Queue(WAITING)
        self._log = structlog.get_logger()
        self.dropped = 0

    def record(self, about: Reference, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Write an event soon, or count it if it is already there."""
        try:
            self._queue.put_nowait((about, type_, reason, message.encode()[:MAX_MESSAGE].decode(errors="ignore")))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write what was recorded, for ever."""
        while True:
            about, type_, reason, message = await self._queue.get()
            try:
                await self._write(about, type_, reason, message)
            except KubeError as error:
                self._log.warning("event_failed", about=about.name, namespace=about.namespace, error=str(error))

    async def _write(self, about: Reference, type_: str, reason: str, message: str) -> None:
        now = asyncio.get_running_loop().time()
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = (about, reason, message)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            known.count += 1
            if now - known.written < REPEAT_SECONDS:
                return
            known.written = now
            try:
                await self._kube.merge(
                    EVENTS, {"count": known.count, "lastTimestamp": stamp}, known.name, about.namespace
                )
                return
            except KubeError as error:
                if not error.not_found:  # The API server drops events after an hour: then write it anew.
                    raise
        known = _Known(f"{about.name[:200]}.{secrets.token_hex(8)}", known.count if known else 1, stamp, now)
        self._known[key] = known
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        await self._kube.create(EVENTS, self._body(about, type_, reason, message, known), about.namespace)

    def _body(self, about: Reference, type_: str, reason: str, message: str, known: _Known) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": known.name, "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                **({"uid": about.uid} if about.uid else {}),
            },
            "type": type_,
            "reason": reason,
            "message": message,
            "count": known.count,
            "firstTimestamp": known.first,
            "lastTimestamp": known.first,
            "source": {"component": self._component},
            "reportingComponent": self._component,
        }
