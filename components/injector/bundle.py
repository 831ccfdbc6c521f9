"""The trust bundle in every meshed namespace: does I/O. The ConfigMap of the mesh's namespace is the source, this makes
the copies.

New anchors come in through the source alone. What is not a copy of this mesh's own making is never written: it may be
the source or the copy of another mesh, whose proxies would trust nobody any more. A copy belongs to the webhook
configuration, so that it goes when the mesh goes; where there is none, nothing is copied.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from components.injector.namespaces import Namespaces
from components.kube.client import CONFIG_MAPS, MUTATING_WEBHOOKS, Kube, KubeError
from components.kube.reflector import Reflector
from proxy.api import labels

MANAGER: Final = "tulle-injector"
CHECK_SECONDS: Final = 60.0
AT_ONCE: Final = 8
"""Copies written at the same time."""

COPIES = Counter("tulle_injector_bundle_writes_total", "Copies of the trust bundle written", ["result"])
BEHIND = Gauge(
    "tulle_injector_bundle_namespaces_behind", "Meshed namespaces whose copy of the bundle is missing or old"
)


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Metadata."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class ConfigMap(msgspec.Struct, frozen=True):
    """A ConfigMap."""

    metadata: Meta
    data: dict[str, str] | None = None


class TrustBundle:
    """The source and its copies."""

    def __init__(
        self,
        kube: Kube,
        mesh_namespace: str,
        namespaces: Namespaces,
        owner: Callable[[], tuple[str, str] | None],
    ) -> None:
        self._kube = kube
        self._mesh_namespace = mesh_namespace
        self._namespaces = namespaces
        self._owner = owner
        self._log = structlog.get_logger()
        self._changed = asyncio.Event()
        # A list with this selector needs no right to any other ConfigMap.
        self._maps: Reflector[str, ConfigMap] = Reflector(
            kube,
            CONFIG_MAPS,
            ConfigMap,
            lambda each: each.metadata.namespace,
            lambda _, __: self.wake(),
            selectors={"fieldSelector": f"metadata.name={labels.BUNDLE_CONFIG_MAP}"},
        )

    def wake(self) -> None:
        """Something changed: have the leader look."""
        self._changed.set()

    async def run(self) -> None:
        """Follow the ConfigMaps, for ever."""
        await self._maps.run()

    @property
    def synced(self) -> asyncio.Event:
        """Set once the copies are known."""
        return self._maps.synced

    async def lead(self) -> None:
        """The leader's work: copies where they are missing or differ, for ever."""
        while True:
            self._changed.clear()
            await self._namespaces.synced.wait()
            await self._maps.synced.wait()
            await self._reconcile()
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def ensure(self, namespace: str) -> None:
        """See to it that a namespace has the bundle before its first injected pod needs it; failures are logged, the
        leader tries on.
        """
        source = self._source()
        if source is None or self._is_current(namespace, source):
            return
        await self._write(namespace, source)

    async def _reconcile(self) -> None:
        source = self._source()
        if source is None:
            self._log.error("no_trust_bundle", config_map=f"{self._mesh_namespace}/{labels.BUNDLE_CONFIG_MAP}")
            return
        # A namespace that is no longer meshed keeps its copy up to date: its running pods still read it.
        kept = {name for name, found in self._maps.objects.items() if self._is_ours(found)}
        wanted = self._namespaces.meshed() | (kept & set(self._namespaces.objects))
        behind = sorted(name for name in wanted if not self._is_current(name, source))
        BEHIND.set(len(behind))
        for start in range(0, len(behind), AT_ONCE):
            await asyncio.gather(*(self._write(name, source) for name in behind[start : start + AT_ONCE]))

    def _source(self) -> dict[str, str] | None:
        found = self._maps.objects.get(self._mesh_namespace)
        return found.data if found is not None and (found.data or {}).get(labels.BUNDLE_KEY) else None

    def _is_current(self, namespace: str, source: dict[str, str]) -> bool:
        found = self._maps.objects.get(namespace)
        if namespace == self._mesh_namespace or self._namespaces.is_leaving(namespace):
            return True
        return found is not None and (found.data or {}) == source

    def _is_ours(self, found: ConfigMap) -> bool:
        given = found.metadata.labels or {}
        mesh = given.get(labels.CONTROL_PLANE_NAMESPACE, self._mesh_namespace)
        return given.get(labels.MANAGED_BY) == MANAGER and mesh == self._mesh_namespace

    async def _write(self, namespace: str, source: dict[str, str]) -> None:
        owner = self._owner()
        if owner is None:
            return
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": labels.BUNDLE_CONFIG_MAP,
                "namespace": namespace,
                "labels": {
                    labels.MANAGED_BY: MANAGER,
                    labels.PART_OF: "tulle",
                    labels.CONTROL_PLANE_NAMESPACE: self._mesh_namespace,
                },
                "ownerReferences": [
                    {
                        "apiVersion": MUTATING_WEBHOOKS.api,
                        "kind": "MutatingWebhookConfiguration",
                        "name": owner[0],
                        "uid": owner[1],
                    }
                ],
            },
            "data": source,
        }
        try:
            written = await self._put(namespace, body)
        except KubeError as error:
            COPIES.labels("failed").inc()
            self._log.warning("bundle_copy_failed", namespace=namespace, error=str(error))
            return
        if written:
            COPIES.labels("written").inc()
            self._log.info("bundle_copied", namespace=namespace)
            return
        COPIES.labels("foreign").inc()
        self._log.error(
            "bundle_not_ours",
            config_map=f"{namespace}/{labels.BUNDLE_CONFIG_MAP}",
            note="left as it is; injected pods there trust what it holds. Delete it to have this mesh's copy made",
        )

    async def _put(self, namespace: str, body: dict[str, Any]) -> bool:
        """Create or replace; False where there is one that is not ours."""
        name = labels.BUNDLE_CONFIG_MAP
        found = self._maps.objects.get(namespace)
        if found is None:
            try:
                await self._kube.create(CONFIG_MAPS, body, namespace)
                return True
            except KubeError as error:
                if not error.conflict:
                    raise
            found = await self._kube.get(CONFIG_MAPS, ConfigMap, name, namespace)
        if not self._is_ours(found):
            return False
        # Without a resourceVersion: whatever was done to our own copy gives way to the source.
        await self._kube.replace(CONFIG_MAPS, body, name, namespace)
        return True
