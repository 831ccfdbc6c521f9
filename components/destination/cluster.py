"""The caches behind discovery: does I/O. Reflectors feed the index, the index says what changed, the publisher tells
who watches.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from prometheus_client import Gauge

from components.destination import objects
from components.destination.external import external_facts
from components.destination.index import Address, Index
from components.destination.model import Mesh, namespace_facts, pod_facts, service_facts, slice_facts
from components.destination.publisher import Publisher
from components.kube.client import ENDPOINT_SLICES, EXTERNAL_WORKLOADS, NAMESPACES, PODS, SERVICES, Kind, Kube
from components.kube.events import Recorder, Reference
from components.kube.reflector import Reflector

F = TypeVar("F")

NOT_REDIRECTED: Final = "NotRedirected"
"""Reason of the Event on a Pod that its network validator keeps from starting."""

OBJECTS = Gauge("tulle_destination_objects", "Objects in the caches", ["kind"])


class Cluster:
    """The caches, one for each kind."""

    def __init__(
        self, kube: Kube, mesh: Mesh, index: Index, publisher: Publisher, recorder: Recorder | None = None
    ) -> None:
        self._kube = kube
        self._publisher = publisher
        self._recorder = recorder
        self._log = structlog.get_logger()
        self.synced = asyncio.Event()
        self._reflectors: list[Reflector[Any, Any]] = [
            self._reflect(
                NAMESPACES, objects.Namespace, namespace_facts, lambda each: each.name, index.apply_namespace
            ),
            self._reflect(PODS, objects.Pod, lambda pod: pod_facts(pod, mesh), lambda each: each.key, index.apply_pod),
            self._reflect(SERVICES, objects.Service, service_facts, lambda each: each.key, index.apply_service),
            self._reflect(
                ENDPOINT_SLICES, objects.EndpointSlice, slice_facts, lambda each: each.key, index.apply_slice
            ),
            self._reflect(
                EXTERNAL_WORKLOADS,
                objects.ExternalWorkload,
                lambda workload: external_facts(workload, mesh),
                lambda each: each.key,
                index.apply_external,
                optional=True,
            ),
        ]

    def __repr__(self) -> str:
        return f"Cluster({', '.join(map(repr, self._reflectors))})"

    def waiting_for(self) -> str | None:
        """The caches that are not filled yet."""
        missing = [each.name for each in self._reflectors if not each.synced.is_set()]
        return f"caches of {', '.join(missing)}" if missing else None

    async def run(self) -> None:
        """Fill and follow, for ever."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            for reflector in self._reflectors:
                await reflector.synced.wait()
            self.synced.set()

    def _reflect(
        self,
        kind: Kind,
        type_: type[Any],
        convert: Callable[[Any], F],
        key: Callable[[F], Any],
        apply: Callable[[F | None, F | None], set[Address]],
        optional: bool = False,
    ) -> Reflector[Any, F]:
        gauge = OBJECTS.labels(kind.plural)

        def handle(old: F | None, new: F | None) -> None:
            gauge.inc((new is not None) - (old is not None))
            problem = getattr(new, "problem", "")
            if problem and problem != getattr(old, "problem", ""):
                event = "bad_workload" if kind is EXTERNAL_WORKLOADS else "bad_annotation"
                self._log.warning(event, kind=kind.plural, object=key(new), error=problem)  # type: ignore[arg-type]
            refusal = getattr(new, "refusal", "")
            if refusal and refusal != getattr(old, "refusal", ""):
                self._tell(new, refusal)
            self._publisher.mark(apply(old, new))

        return Reflector(self._kube, kind, type_, key, handle, convert=convert, optional=optional)

    def _tell(self, pod: Any, refusal: str) -> None:
        """A Pod cannot write Events itself, and the kubelet's only say that a container is tried again."""
        self._log.warning("pod_not_redirected", pod=pod.key, said=refusal)
        if self._recorder is not None:
            namespace, name = pod.key
            self._recorder.record(Reference("v1", "Pod", namespace, name, pod.uid), "Warning", NOT_REDIRECTED, refusal)
