"""Certify over a real gRPC connection: every refusal has its status and its reason, and a good request its leaf."""

import datetime
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from prometheus_client import REGISTRY

from components.identity.claims import Claims, TokenError
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.server import IdentityService, Settings, make_server
from components.identity.validator import Validator
from components.kube.client import KubeError
from components.trust.reports import Report
from proxy.api import identity_pb2 as pb
from proxy.api import identity_pb2_grpc
from tests.kit.authorities import authority, request

NAME = "web.demo.serviceaccount.identity.tulle.cluster.local"
CSR = request(x509.DNSName(NAME))


class Tokens(Validator):
    """Knows tokens by heart."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    async def validate(self, token: bytes) -> Claims:
        if self.failure is not None:
            raise self.failure
        if not token.startswith(b"pod-"):
            raise TokenError("rejected", "the API server refuses the token: expired")
        return Claims("web", "demo", token.decode(), token.decode())


class Caller:
    """A proxy that asks."""

    def __init__(self, port: int, issuers: IssuerFiles, tokens: Tokens, heard: dict[str, Report]) -> None:
        self.heard = heard
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = identity_pb2_grpc.IdentityStub(self.channel)  # type: ignore[no-untyped-call]
        self.issuers = issuers
        self.tokens = tokens

    async def ask(self, **changes: Any) -> pb.CertifyResponse:
        fields = {"identity": NAME, "token": b"pod-1", "certificate_signing_request": CSR, **changes}
        answer: pb.CertifyResponse = await self.stub.Certify(pb.CertifyRequest(**fields))
        return answer

    async def refused(self, **changes: Any) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(**changes)
        return caught.value.code().name, caught.value.details() or ""


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    root = authority("root", start=now - day, end=now + 9 * day)
    issuer = authority("issuer", root, start=now - day, end=now + 9 * day)
    (tmp_path / "tls.crt").write_bytes(issuer.pem)
    (tmp_path / "tls.key").write_bytes(issuer.key_pem)
    (tmp_path / "bundle").write_bytes(root.pem)
    issuers = IssuerFiles(tmp_path, tmp_path / "bundle")
    issuers.read(now)
    tokens = Tokens()
    settings = Settings("tulle", "cluster.local", datetime.timedelta(hours=24))
    heard: dict[str, Report] = {}
    limits = Limits(0.001, 3, 0.001, 30, 0.0)
    server = make_server(IdentityService(settings, issuers, tokens, limits, heard.__setitem__))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    found = Caller(port, issuers, tokens, heard)
    yield found
    await found.channel.close()
    await server.stop(None)


def counted(result: str, reason: str) -> float:
    labels = {"result": result, "reason": reason}
    return REGISTRY.get_sample_value("tulle_identity_certificates_total", labels) or 0.0


async def test_a_good_request_gets_a_leaf_and_its_chain(caller: Caller) -> None:
    before = counted("issued", "")
    answer = await caller.ask()
    leaf = x509.load_der_x509_certificate(answer.leaf_certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert answer.valid_until == int(leaf.not_valid_after_utc.timestamp())
    assert len(answer.intermediate_certificates) == 1
    assert counted("issued", "") == before + 1


async def test_what_a_proxy_reports_is_passed_on_with_the_anchor_of_its_leaf(caller: Caller) -> None:
    answer = await caller.ask(trust_bundle_sha256="ab" * 32)
    issuer = caller.issuers.current
    assert issuer is not None
    assert len(issuer.anchor) == 64
    assert caller.heard == {"pod-1": Report("ab" * 8, issuer.anchor[:16], answer.valid_until)}
    caller.heard.clear()
    await caller.ask(trust_bundle_sha256="not a digest")
    await caller.refused(token=b"other", trust_bundle_sha256="ab" * 32)
    assert caller.heard == {}, "neither nonsense nor a refused caller is a report"


@pytest.mark.parametrize(
    ("changes", "status", "reason", "words"),
    [
        ({"token": b"other"}, "UNAUTHENTICATED", "token_rejected", "expired"),
        (
            {"identity": "api.demo.serviceaccount.identity.tulle.cluster.local"},
            "PERMISSION_DENIED",
            "identity_mismatch",
            f"api.demo.serviceaccount.identity.tulle.cluster.local.*{NAME}",
        ),
        ({"identity": "web.demo.example"}, "PERMISSION_DENIED", "identity_foreign", "not an identity of this mesh"),
        ({"identity": ""}, "PERMISSION_DENIED", "identity_foreign", "not an identity of this mesh"),
        (
            {"certificate_signing_request": request(x509.DNSName("evil.example"))},
            "PERMISSION_DENIED",
            "csr_name_mismatch",
            f"evil.example.*{NAME}",
        ),
        ({"certificate_signing_request": b"junk"}, "INVALID_ARGUMENT", "csr_invalid", "cannot be read"),
    ],
)
async def test_each_refusal_has_its_status_reason_and_words(
    caller: Caller, changes: dict[str, Any], status: str, reason: str, words: str
) -> None:
    before = counted("refused", reason)
    code, details = await caller.refused(**changes)
    assert code == status

    assert re.search(words, details), details
    assert counted("refused", reason) == before + 1


async def test_without_an_issuer_the_answer_is_unavailable(caller: Caller) -> None:
    caller.issuers.current = None
    assert (await caller.refused())[0] == "UNAVAILABLE"


async def test_without_an_api_server_the_answer_is_unavailable(caller: Caller) -> None:
    caller.tokens.failure = KubeError(0, "Unreachable", "connection refused")
    code, details = await caller.refused()
    assert code == "UNAVAILABLE"
    assert "connection refused" in details


async def test_one_pods_flood_is_refused_and_no_others(caller: Caller) -> None:
    for _ in range(3):
        await caller.ask()
    code, details = await caller.refused()
    assert (code, "pod-1" in details) == ("RESOURCE_EXHAUSTED", True)
    await caller.ask(token=b"pod-2")


async def test_everybodys_flood_is_bounded_before_it_reaches_the_api_server(caller: Caller) -> None:
    for number in range(30):
        await caller.ask(token=f"pod-{number}".encode())
    caller.tokens.failure = AssertionError("asked although the limit was reached")
    code, details = await caller.refused(token=b"pod-99")
    assert (code, "too many requests" in details) == ("RESOURCE_EXHAUSTED", True)


async def test_an_oversized_message_is_refused(caller: Caller) -> None:
    code, _ = await caller.refused(certificate_signing_request=b"x" * 100_000)
    assert code == "RESOURCE_EXHAUSTED"


async def test_bundle_reports_are_counted_under_a_bounded_label(caller: Caller) -> None:
    digest = "0123456789abcdef" * 4
    await caller.ask(trust_bundle_sha256=digest)
    await caller.ask(trust_bundle_sha256="<script>")
    value = REGISTRY.get_sample_value("tulle_identity_bundle_reports_total", {"bundle": digest[:16]})
    assert value == 1.0
    assert REGISTRY.get_sample_value("tulle_identity_bundle_reports_total", {"bundle": "unknown"})
