"""A local copy of all objects of a kind, kept up to date: does I/O. List, then watch; list again after a gap and every
few minutes.

The copy is never emptied by a lost connection. A relist reports only what differs, so that a resync is silent where
nothing was missed. What the objects mean belongs to whoever gives the callback.
"""

import asyncio
import random
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

import structlog

from components.kube.client import Kind, Kube, KubeError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

WATCH_SECONDS: Final = 240
"""Length of one watch; the API server may end it sooner."""
RESYNC_SECONDS: Final = 600.0
"""After this long everything is listed anew, since a notification may have been lost without a trace."""
FIRST_BACKOFF: Final = 0.1
MAX_BACKOFF: Final = 2.0
"""Cap of the wait between attempts (full jitter): a control plane that is back should be noticed at once."""

SHORT_WATCH: Final = 1.0
"""After a watch shorter than this comes a pause: an API server that shuts down ends each one at once."""

ABSENT_SECONDS: Final = 30.0
"""How often a kind that the API server does not know is asked for again."""

Handler = Callable[[T | None, T | None], None]


class Reflector(Generic[K, T]):
    """The copy. Objects are decoded into `type_` and, given `convert`, kept as what it makes of them.

    `handler(old, new)` is called for each difference: (None, new) added, (old, new) changed, (old, None)
    removed. An `optional` kind may be one that the API server does not have: then there are no objects.
    """

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        type_: type[Any],
        key: Callable[[T], K],
        handler: Handler[T],
        *,
        convert: Callable[[Any], T] | None = None,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
        resync_seconds: float = RESYNC_SECONDS,
        optional: bool = False,
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._type = type_
        self._key = key
        self._handler = handler
        self._convert: Callable[[Any], T] = convert if convert is not None else lambda item: item
        self.name = kind.plural
        self._namespace = namespace
        self._selectors = selectors
        self._resync_seconds = resync_seconds
        self._optional = optional
        self._log = structlog.get_logger().bind(kind=kind.plural)
        self.objects: dict[K, T] = {}
        self.synced = asyncio.Event()
        self.lists = 0
        self.failures = 0

    def __repr__(self) -> str:
        state = "synced" if self.synced.is_set() else "not synced"
        size = f"{len(self.objects)} objects, {self.lists} lists, {self.failures} failures"
        return f"Reflector({self._kind.plural}, {state}, {size})"

    async def run(self) -> None:
        """Follow for ever; every failure is logged, waited for and tried again."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                version = await self._list()
                backoff = FIRST_BACKOFF
                await self._follow(version)
            except KubeError as error:
                self.failures += 1
                if error.gone:
                    continue
                if self._optional and error.not_found:
                    # A kind that is not installed has no objects; those of one that was removed went with it.
                    self._take({})
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                self._log.warning("watch_failed", error=str(error), retry_within_seconds=backoff)
                await asyncio.sleep(random.uniform(0, backoff))  # noqa: S311
                backoff = min(backoff * 2, MAX_BACKOFF)

    async def _list(self) -> str:
        version, found = await self._kube.list(self._kind, self._type, self._namespace, self._selectors)
        self.lists += 1
        self._take({self._key(item): item for item in map(self._convert, found)})
        return version

    def _take(self, current: dict[K, T]) -> None:
        for key in [key for key in self.objects if key not in current]:
            self._set(key, None)
        for key, item in current.items():
            self._set(key, item)
        if not self.synced.is_set():
            self._log.info("synced", objects=len(self.objects))
            self.synced.set()

    async def _follow(self, version: str) -> None:
        """Watch until it is time for a resync; a watch that merely ended goes on from where it was."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._resync_seconds * random.uniform(0.8, 1.0)  # noqa: S311
        failures = 0
        while (left := until - loop.time()) > 0:
            seconds = max(1, min(WATCH_SECONDS, int(left)))
            begun = loop.time()
            try:
                async for change in self._kube.watch(
                    self._kind, self._type, version, seconds, self._namespace, self._selectors
                ):
                    failures = 0
                    version = change.version
                    if change.value is not None:
                        item = self._convert(change.value)
                        self._set(self._key(item), None if change.type == "DELETED" else item)
            except KubeError as error:
                # One broken connection is common (an API server restarts); twice in a row, nothing is sure any more:
                # list.
                failures += 1
                if error.gone or failures > 1:
                    raise
                self.failures += 1
                self._log.info("watch_broken", error=str(error))
            if loop.time() - begun < SHORT_WATCH:
                await asyncio.sleep(random.uniform(0, FIRST_BACKOFF))  # noqa: S311

    def _set(self, key: K, new: T | None) -> None:
        old = self.objects.get(key)
        if old == new:
            return
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = new
        self._handler(old, new)
