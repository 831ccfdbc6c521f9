"""Namespaces as the injector sees them: does I/O. Which are meshed, and what their annotations say."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from components.injector.decide import Namespace
from components.kube.client import NAMESPACES, Kube
from components.kube.reflector import Reflector
from proxy.api import labels

PREFIXES: Final = (labels.CONFIG_PREFIX, "config.alpha.linkerd.io/", "config.beta.linkerd.io/")
"""Annotations that are kept; others are not read."""


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Metadata."""

    name: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class NamespaceObject(msgspec.Struct, frozen=True):
    """A Namespace as the API writes it."""

    metadata: Meta


class Known(msgspec.Struct, frozen=True):
    """What is kept of one."""

    namespace: Namespace
    leaving: bool


def known(given: NamespaceObject) -> Known:
    """What counts of a Namespace: pure."""
    meta = given.metadata
    kept_labels = {
        key: value
        for key, value in (meta.labels or {}).items()
        if key in (labels.MESHED_NAMESPACE, labels.ADMISSION_EXEMPT)
    }
    kept = {
        key: value
        for key, value in (meta.annotations or {}).items()
        if key == labels.INJECT or key.startswith(PREFIXES)
    }
    return Known(Namespace(meta.name, kept, kept_labels), meta.deletion_timestamp is not None)


class Namespaces:
    """A copy of all Namespaces."""

    def __init__(self, kube: Kube, exempt: Callable[[], tuple[str, ...]]) -> None:
        self._kube = kube
        self._exempt = exempt
        self.on_change: Callable[[], None] = lambda: None
        self._reflector: Reflector[str, Known] = Reflector(
            kube,
            NAMESPACES,
            NamespaceObject,
            lambda each: each.namespace.name,
            lambda _, __: self.on_change(),
            convert=known,
        )

    @property
    def objects(self) -> dict[str, Known]:
        """All that are known."""
        return self._reflector.objects

    @property
    def synced(self) -> asyncio.Event:
        """Set once all are known."""
        return self._reflector.synced

    async def run(self) -> None:
        """Follow, for ever."""
        await self._reflector.run()

    async def get(self, name: str) -> Namespace:
        """One namespace; one that is too new to be known is asked for. Raises KubeError."""
        found = self.objects.get(name)
        return found.namespace if found is not None else await self.ask(name)

    async def ask(self, name: str) -> Namespace:
        """One namespace as it is this moment, whatever is known here. Raises KubeError."""
        return known(await self._kube.get(NAMESPACES, NamespaceObject, name)).namespace

    def meshed(self) -> set[str]:
        """The names of those that are injected as a whole."""
        exempt = self._exempt()
        return {
            name
            for name, each in self.objects.items()
            if not each.leaving
            and name not in exempt
            and (
                each.namespace.annotations.get(labels.INJECT) == "enabled"
                or each.namespace.labels.get(labels.MESHED_NAMESPACE) == "enabled"
            )
        }

    def is_leaving(self, name: str) -> bool:
        """Whether it is being deleted, and takes no new objects."""
        found = self.objects.get(name)
        return found is not None and found.leaving
