"""Telling owners what became of their pods: does I/O. An event on the Deployment, not on the Pod, which may never come
to exist.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import structlog

from components.injector.admission import controller_of
from components.kube.client import REPLICA_SETS, Kube, KubeError
from components.kube.events import Recorder, Reference

WAITING: Final = 200
REMEMBERED: Final = 1_000


class _OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    owner_references: list[_OwnerReference] | None = None


class _Owned(msgspec.Struct, frozen=True):
    metadata: _Meta


class OwnerEvents:
    """Finds a pod's owner and writes the event there; in the background, so that admission never waits for it."""

    def __init__(self, kube: Kube, recorder: Recorder) -> None:
        self._kube = kube
        self._recorder = recorder
        self._queue: asyncio.Queue[tuple[Reference, bool, str, str]] = asyncio.Queue(WAITING)
        self._deployments: OrderedDict[str, Reference] = OrderedDict()
        self._log = structlog.get_logger()
        self.dropped = 0

    def tell(self, pod: Mapping[str, Any], namespace: str, *, warning: bool, reason: str, message: str) -> None:
        """Write an event on the pod's owner soon."""
        reference = controller_of(pod)
        metadata = pod.get("metadata") or {}
        if reference is None:
            name = str(metadata.get("name") or metadata.get("generateName") or "pod").rstrip("-")
            about = Reference("v1", "Pod", namespace, name, str(metadata.get("uid") or ""))
        else:
            about = Reference(
                str(reference.get("apiVersion")),
                str(reference.get("kind")),
                namespace,
                str(reference.get("name")),
                str(reference.get("uid") or ""),
            )
        try:
            self._queue.put_nowait((about, warning, reason, message))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Resolve and hand on, for ever."""
        while True:
            about, warning, reason, message = await self._queue.get()
            type_: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
            self._recorder.record(await self._resolve(about), type_, reason, message)

    async def _resolve(self, about: Reference) -> Reference:
        """A ReplicaSet's Deployment, where it has one."""
        if about.kind != "ReplicaSet":
            return about
        known = self._deployments.get(about.uid)
        if known is not None:
            return known
        try:
            owned = await self._kube.get(REPLICA_SETS, _Owned, about.name, about.namespace)
        except KubeError as error:
            self._log.info("owner_unknown", replicaset=about.name, namespace=about.namespace, error=str(error))
            return about
        owner = next((each for each in owned.metadata.owner_references or () if each.controller), None)
        found = about
        if owner is not None:
            found = Reference(owner.api_version, owner.kind, about.namespace, owner.name, owner.uid)
        self._deployments[about.uid] = found
        while len(self._deployments) > REMEMBERED:
            self._deployments.popitem(last=False)
        return found
