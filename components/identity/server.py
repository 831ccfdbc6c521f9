"""The gRPC face of identity: does I/O. Token, limits, names, signature, in this order; each refusal has a status and a
counted reason.
"""

import asyncio
import datetime
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import Counter, Histogram

from components.external.joining import JoinError, check_name, check_renewal, joined
from components.identity.authority import CSRError, Issuer, IssuerError, NameMismatchError, issue, public_key_of
from components.identity.claims import Claims, TokenError
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.machines import Machines
from components.identity.possession import LeafError, check_leaf
from components.identity.validator import Validator
from components.kube.client import KubeError
from components.trust.reports import DIGITS, Report
from proxy.api import identity_pb2, identity_pb2_grpc
from proxy.api.names import InvalidNameError, WorkloadIdentity, parse_dns_name

CLIENT_RATE: Final = 0.5
CLIENT_BURST: Final = 20.0
"""A pod may have 20 certificates at once and one every 2 s after that: enough for a crash loop, not for a flood."""
TOTAL_RATE: Final = 200.0
TOTAL_BURST: Final = 1_000.0
"""For all callers together: a thousand proxies that restart at once are served, a flood is not passed on to the API
server.
"""
MAX_MESSAGE: Final = 64 * 1024
_WORKLOAD: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A name that Kubernetes would take (RFC 1123); anything else would be another path of the API."""
MAX_STREAMS: Final = 100
SERVER_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.so_reuseport", 0),
]

CERTIFIED = Counter("tulle_identity_certificates_total", "Requests for a certificate", ["result", "reason"])
SECONDS = Histogram(
    "tulle_identity_certify_seconds",
    "Time to answer a request for a certificate",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BUNDLES = Counter(
    "tulle_identity_bundle_reports_total", "Certificates issued, by the trust bundle the proxy has", ["bundle"]
)
MAX_BUNDLES: Final = 16
"""Different bundle hashes that become a metric label; proxies choose the value, so it must be bounded."""


class RefusedError(Exception):
    """A refusal on its way out: gRPC status, metric label, sentence."""

    def __init__(self, status: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is told."""

    mesh_namespace: str
    trust_domain: str
    lifetime: datetime.timedelta


class IdentityService(identity_pb2_grpc.IdentityServicer):
    """Certify."""

    def __init__(
        self,
        settings: Settings,
        issuers: IssuerFiles,
        validator: Validator,
        limits: Limits,
        heard: Callable[[str, Report], None] | None = None,
        machines: Machines | None = None,
    ) -> None:
        self._heard = heard
        self._machines = machines
        self._settings = settings
        self._issuers = issuers
        self._validator = validator
        self._limits = limits
        self._bundles: set[str] = set()
        self._log = structlog.get_logger()

    async def Certify(
        self, request: identity_pb2.CertifyRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> identity_pb2.CertifyResponse:
        """A token and a CSR for a leaf."""
        with SECONDS.time():
            try:
                answer = await self._certify(request)
            except RefusedError as refused:
                CERTIFIED.labels("refused", refused.reason).inc()
                self._log.warning("refused", reason=refused.reason, error=str(refused), asked=request.identity[:300])
                await _abort(context, refused.status, str(refused))
            CERTIFIED.labels("issued", "").inc()
            self._count_bundle(request.trust_bundle_sha256)
            return answer

    async def _certify(self, request: identity_pb2.CertifyRequest) -> identity_pb2.CertifyResponse:
        asked = self._asked_for(request.identity)
        now = asyncio.get_running_loop().time()
        if not self._limits.take_total(now):
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "limit_total", "too many requests; try again later")
        if request.external_workload:
            return await self._certify_machine(request, asked, now)
        claims, identity = await self._who(request.token)
        if asked != identity:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED,
                "identity_mismatch",
                f"the request is for {asked.dns_name!r}, but the token is of {identity.dns_name!r}",
            )
        self._limit(claims.pod_uid, f"pod {claims.namespace}/{claims.pod}", now)
        key = _key_of(request, identity)
        issued = self._sign(self._issuer(), key, identity, f"{claims.namespace}/{claims.pod}", request)
        if self._heard is not None and _is_digest(request.trust_bundle_sha256):
            report = Report(request.trust_bundle_sha256[:DIGITS], issued.anchor[:DIGITS], issued.answer.valid_until)
            self._heard(claims.pod_uid, report)
        return issued.answer

    async def _certify_machine(
        self, request: identity_pb2.CertifyRequest, identity: WorkloadIdentity, now: float
    ) -> identity_pb2.CertifyResponse:
        """A machine outside the cluster: by its join token, or by the leaf that it has."""
        name, wall = request.external_workload, datetime.datetime.now(datetime.UTC)
        if self._machines is None or not _WORKLOAD.fullmatch(name):
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "workload_name", f"no ExternalWorkload {name[:100]!r}")
        if identity.namespace == self._settings.mesh_namespace:
            # Whoever may write objects there is not thereby identity or destination to the whole mesh.
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, "workload_namespace", "no machine is part of the control plane"
            )
        key = _key_of(request, identity)
        public = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        # Before a token is spent it must be certain that something can be signed.
        issuer = self._issuer()
        where = f"{identity.namespace}/{name}"
        try:
            if request.current_chain:
                # First of all: who has no certificate of this mesh learns nothing of what there is in it.
                check_leaf(list(request.current_chain), key, identity, self._issuers.bundle, wall)
            workload = await self._machines.find(name, identity)
            if request.current_chain:
                check_name(workload, identity.dns_name)
                check_renewal(workload, public)
            else:
                joined(workload, request.token, public, wall)
                check_name(workload, identity.dns_name)
            self._limit(("external", where), f"ExternalWorkload {where}", now)
            if not request.current_chain:
                await self._machines.spend(workload, request.token, public, wall)
        except LeafError as error:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, f"leaf_{error.reason}", str(error)) from error
        except JoinError as error:
            raise _not_joined(error, request, where) from error
        except KubeError as error:
            raise RefusedError(
                grpc.StatusCode.UNAVAILABLE, "workload_unreadable", f"ExternalWorkload {where}: {error}"
            ) from error
        return self._sign(issuer, key, identity, f"external {where}", request).answer

    def _limit(self, client: Hashable, who: str, now: float) -> None:
        if not self._limits.take_client(client, now):
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "limit_client",
                f"{who} asks for too many certificates; try again later",
            )

    def _issuer(self) -> Issuer:
        issuer = self._issuers.current
        if issuer is None:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "no_issuer", f"no usable issuer: {self._issuers.problem}")
        return issuer

    def _sign(
        self,
        issuer: Issuer,
        key: ec.EllipticCurvePublicKey,
        identity: WorkloadIdentity,
        pod: str,
        request: identity_pb2.CertifyRequest,
    ) -> "_Signed":
        wall = datetime.datetime.now(datetime.UTC)
        try:
            issued = issue(
                issuer,
                key,
                identity,
                now=wall,
                lifetime=self._settings.lifetime,
                serial=x509.random_serial_number(),
            )
        except IssuerError as error:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, f"issuer_{error.reason}", str(error)) from error
        self._log.info(
            "issued",
            identity=identity.dns_name,
            pod=pod,
            serial=f"{issued.serial:x}",
            not_after=issued.not_after.isoformat(),
            proxy_version=request.proxy_version[:64],
        )
        answer = identity_pb2.CertifyResponse(
            leaf_certificate=issued.leaf,
            intermediate_certificates=issued.intermediates,
            valid_until=int(issued.not_after.timestamp()),
        )
        return _Signed(answer, issuer.anchor)

    def _asked_for(self, name: str) -> WorkloadIdentity:
        try:
            return parse_dns_name(name, self._settings.mesh_namespace, self._settings.trust_domain)
        except InvalidNameError as error:
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, "identity_foreign", f"not an identity of this mesh: {error}"
            ) from error

    async def _who(self, token: bytes) -> tuple[Claims, WorkloadIdentity]:
        try:
            claims = await self._validator.validate(token)
            return claims, claims.identity(self._settings.mesh_namespace, self._settings.trust_domain)
        except TokenError as error:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, f"token_{error.reason}", str(error)) from error
        except KubeError as error:
            raise RefusedError(
                grpc.StatusCode.UNAVAILABLE, "token_review_failed", f"the token could not be reviewed: {error}"
            ) from error

    def _count_bundle(self, digest: str) -> None:
        label = digest[:DIGITS] if _is_digest(digest) else "unknown"
        if label not in self._bundles:
            if len(self._bundles) >= MAX_BUNDLES:
                label = "other"
            self._bundles.add(label)
        BUNDLES.labels(label).inc()


@dataclass(frozen=True, slots=True)
class _Signed:
    """An answer, and the anchor (SHA-256) that its leaf leads to."""

    answer: identity_pb2.CertifyResponse
    anchor: str


def _key_of(request: identity_pb2.CertifyRequest, identity: WorkloadIdentity) -> ec.EllipticCurvePublicKey:
    try:
        return public_key_of(request.certificate_signing_request, identity)
    except NameMismatchError as error:
        raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, "csr_name_mismatch", str(error)) from error
    except CSRError as error:
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "csr_invalid", str(error)) from error


def _not_joined(error: JoinError, request: identity_pb2.CertifyRequest, where: str) -> RefusedError:
    if error.reason == "conflict":
        return RefusedError(grpc.StatusCode.ABORTED, "workload_conflict", str(error))
    if error.reason == "unknown" and not request.current_chain:
        # Guessing names must not tell which of them exist: a wrong token is answered alike.
        message = f"this is not the join token of ExternalWorkload {where}; make one with `tulle external token`"
        return RefusedError(grpc.StatusCode.UNAUTHENTICATED, "workload_token_unknown", message)
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, f"workload_{error.reason}", str(error))


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


async def _abort(context: "grpc.aio.ServicerContext[Any, Any]", status: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(status, message[:1_000])
    raise AssertionError("abort returned")


def make_server(service: IdentityService) -> grpc.aio.Server:
    """A server with its limits, not yet bound."""
    server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=2_000)
    identity_pb2_grpc.add_IdentityServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    return server
