"""The admission webhook: does I/O. Read the review, ask `admission` for the answer, see to the namespace's trust
bundle, tell the owner.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Histogram
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from components.injector.admission import Request as AdmissionRequest
from components.injector.admission import ReviewError, consider, read_review
from components.injector.bundle import TrustBundle
from components.injector.configuration import ConfigFile
from components.injector.decide import (
    NOT_ANNOTATED,
    SIDECAR_EXISTS,
    SILENT,
    Decision,
    Inject,
    Namespace,
    Refuse,
    Skip,
)
from components.injector.namespaces import Namespaces
from components.injector.owners import OwnerEvents
from components.kube.client import KubeError
from proxy.api import labels

MAX_BODY: Final = 4 * 1024 * 1024
"""Bounds a review; the API server itself takes objects of at most 3 MB."""
BUNDLE_SECONDS: Final = 2.0
"""How long admission waits for the first bundle of a namespace; the webhook's own time-out is 10 s."""
QUIET: Final = frozenset({SIDECAR_EXISTS})
"""Skips that somebody wanted: a Normal event."""

ADMISSIONS = Counter("tulle_injector_admissions_total", "Admission reviews answered", ["result", "reason"])
SECONDS = Histogram(
    "tulle_injector_admission_seconds",
    "Time to answer an admission review",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class ServerVersion:
    """Whether the API server runs native sidecars."""

    def __init__(self) -> None:
        self.native = False
        self.known = asyncio.Event()

    def set(self, version: tuple[int, int]) -> None:
        """Take note of its version."""
        self.native = version >= (1, 29)
        self.known.set()


class Webhook:
    """Answers reviews."""

    def __init__(
        self,
        config: ConfigFile,
        namespaces: Namespaces,
        bundle: TrustBundle,
        owners: OwnerEvents,
        version: ServerVersion,
    ) -> None:
        self._config = config
        self._namespaces = namespaces
        self._bundle = bundle
        self._owners = owners
        self._version = version
        self._log = structlog.get_logger()

    def app(self) -> Starlette:
        """The web application."""
        return Starlette(routes=[Route("/inject", self._inject, methods=["POST"])])

    async def _inject(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                ADMISSIONS.labels("error", "too_long").inc()
                return PlainTextResponse(f"an AdmissionReview has at most {MAX_BODY} bytes\n", 413)
        with SECONDS.time():
            try:
                answer = await self._answer(read_review(bytes(body)))
            except ReviewError as error:
                ADMISSIONS.labels("error", "malformed").inc()
                return PlainTextResponse(f"{error}\n", 400)
            except KubeError as error:
                ADMISSIONS.labels("error", "kubernetes").inc()
                self._log.warning("review_failed", error=str(error))
                return PlainTextResponse(f"{error}\n", 500)
        return Response(answer, media_type="application/json")

    async def _answer(self, request: AdmissionRequest) -> bytes:
        namespace = await self._namespaces.get(request.namespace) if request.namespace else Namespace("")
        config = self._config.current
        decision, answer = consider(request, namespace, config, native_supported=self._version.native)
        if isinstance(decision, Skip) and decision.reason == NOT_ANNOTATED:
            # What we know may be a moment old, and "annotate the namespace, restart the pods" must hold without a
            # pause.
            namespace = await self._namespaces.ask(request.namespace)
            decision, answer = consider(request, namespace, config, native_supported=self._version.native)
        pod = request.object or {}
        reason = "" if isinstance(decision, Inject) else decision.reason
        result = type(decision).__name__.lower()
        ADMISSIONS.labels(result, reason).inc()
        self._log.info(
            "reviewed",
            namespace=request.namespace,
            pod=_name(pod),
            result=result,
            reason=reason,
            dry_run=bool(request.dry_run),
        )
        if not request.dry_run:
            if isinstance(decision, Inject) or _injected_by_hand(decision, pod, config.mesh_namespace):
                await self._see_to_bundle(request.namespace)
            self._tell(decision, pod, namespace)
        return msgspec.json.encode(answer)

    async def _see_to_bundle(self, namespace: str) -> None:
        try:
            async with asyncio.timeout(BUNDLE_SECONDS):
                await self._bundle.ensure(namespace)
        except TimeoutError:
            # The pod waits for its volume, and the leader will bring it.
            self._log.warning("bundle_slow", namespace=namespace)

    def _tell(self, decision: Decision, pod: Mapping[str, Any], namespace: Namespace) -> None:
        name = namespace.name
        if isinstance(decision, Inject):
            kind = "native" if decision.native else "classic"
            self._owners.tell(pod, name, warning=False, reason="Injected", message=f"proxy added as {kind} sidecar")
            for notice in decision.notices:
                message = f"{notice.reason}: {notice.message}"
                self._owners.tell(pod, name, warning=True, reason="InjectionNotice", message=message)
            return
        # In a namespace that is labelled as meshed, a pod that nobody asked to inject is a surprise worth an event.
        expected = namespace.labels.get(labels.MESHED_NAMESPACE) == "enabled" and decision.reason == NOT_ANNOTATED
        if decision.reason in SILENT and not expected:
            return
        event = "InjectionRefused" if isinstance(decision, Refuse) else "InjectionSkipped"
        message = f"{decision.reason}: {decision.message}"
        self._owners.tell(pod, name, warning=decision.reason not in QUIET, reason=event, message=message)


def _injected_by_hand(decision: Decision, pod: Mapping[str, Any], mesh_namespace: str) -> bool:
    """Whether `tulle inject --manual` has made this pod: it needs the bundle, too."""
    pod_labels = (pod.get("metadata") or {}).get("labels") or {}
    ours = pod_labels.get(labels.CONTROL_PLANE_NAMESPACE) == mesh_namespace
    return isinstance(decision, Skip) and ours


def _name(pod: Mapping[str, Any]) -> str:
    metadata = pod.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "")
