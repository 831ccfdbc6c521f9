"""The life of a pod's certificates: first one, renewal, failures, new anchors. Issuing is played by the test, time is
short.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.api import identity_pb2 as api
from proxy.control import identity as module
from proxy.control.identity import PATH, Identity, refresh_delay
from proxy.control.keypair import KeyGenerationError, KeyPair, generate, parts_from
from proxy.control.machine import Machine
from proxy.control.trust import TrustBundle
from proxy.telemetry.exposition import render
from proxy.telemetry.log import Log
from proxy.wire import grpc

NAME = "web.demo.serviceaccount.identity.tulle.cluster.local"
PEM = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


class Issuer:
    """Stands for the control plane and for libssl: hands out numbered leaves, and remembers what was loaded."""

    def __init__(self) -> None:
        self.requests: list[api.CertifyRequest] = []
        self.errors: list[Exception] = []
        self.loaded: list[tuple[list[bytes], bytes, bytes]] = []
        self.refuses: set[bytes] = set()
        self.lifetime = 1000
        self.old_issuer_until = 0
        """How many requests are answered with a leaf of the issuer before."""
        self.now = 5000.0
        self.disconnects = 0

    async def unary(self, path: str, message: bytes, timeout: float) -> bytes:
        assert path == PATH
        self.requests.append(api.CertifyRequest.FromString(message))
        if self.errors:
            raise self.errors.pop(0)
        return api.CertifyResponse(
            leaf_certificate=b"leaf %d" % len(self.requests),
            intermediate_certificates=[self.issuer()],
            valid_until=int(self.now) + self.lifetime,
        ).SerializeToString()

    def issuer(self) -> bytes:
        return b"issuer" if len(self.requests) <= self.old_issuer_until or self.old_issuer_until == 0 else b"new issuer"

    def disconnect(self) -> None:
        self.disconnects += 1

    def load(self, chain_der: list[bytes], key_der: bytes, bundle_pem: bytes) -> None:
        if bundle_pem in self.refuses or chain_der[0] in self.refuses:
            raise ValueError("certificate verify failed: unable to get local issuer certificate")
        self.loaded.append((chain_der, key_der, bundle_pem))


class Bench:
    """One identity with its files."""

    def __init__(self, folder: Path, machine: Machine | None = None) -> None:
        self.issuer = Issuer()
        self.lines: list[str] = []
        self.token = folder / "token"
        self.token.write_text("first-token\n")
        self.file = folder / "ca-bundle.crt"
        self.file.write_bytes(PEM)
        log = Log("debug", write=self.lines.append)
        self.bundle = TrustBundle(str(self.file), log, interval=0.01)
        self.keys = 0
        self.identity = Identity(
            NAME, client=self.issuer, contexts=self.issuer, bundle=self.bundle, token_file=str(self.token), log=log,
            min_refresh=0.05, max_refresh=1000, version="1.2", generate=self.generate, now=lambda: self.issuer.now,
            dice=lambda: 0.0, machine=machine,
        )  # fmt: skip
        self.tasks: list[asyncio.Task[None]] = []

    async def generate(self, identity: str) -> KeyPair:
        self.keys += 1
        return KeyPair(b"key of " + identity.encode(), b"request")

    async def __aenter__(self) -> Self:
        self.tasks = [asyncio.create_task(self.bundle.run()), asyncio.create_task(self.identity.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.asyncio
async def test_the_first_certificate_makes_it_ready(bench: Bench) -> None:
    assert not bench.identity.is_ready
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
    (request,) = bench.issuer.requests
    assert request.identity == NAME
    assert request.token == b"first-token"
    assert request.certificate_signing_request == b"request"
    assert request.proxy_version == "1.2"
    assert bench.bundle.cell.value is not None
    assert request.trust_bundle_sha256 == bench.bundle.cell.value.sha256
    assert bench.issuer.loaded == [([b"leaf 1", b"issuer"], b"key of " + NAME.encode(), PEM)]
    assert bench.issuer.disconnects == 1
    assert bench.identity.statistics()["valid_until"] == 6000


@pytest.mark.asyncio
async def test_it_renews_with_the_same_key_and_a_token_read_anew(bench: Bench) -> None:
    bench.issuer.lifetime = 0
    async with bench:
        await until(lambda: len(bench.issuer.loaded) == 1)
        bench.token.write_text("second-token")
        await until(lambda: len(bench.issuer.loaded) >= 3)
    assert bench.keys == 1
    assert bench.issuer.requests[-1].token == b"second-token"
    assert bench.issuer.loaded[1][0][0] == b"leaf 2"
    assert any("is this node's clock right?" in line for line in bench.lines)


@pytest.mark.asyncio
async def test_failures_are_retried_and_take_nothing_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL_CAP", 0.01)
    bench.issuer.errors = [grpc.CallError(grpc.Status(grpc.UNAVAILABLE, "no issuer")), OSError("no route")]
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
        assert bench.identity.refreshes_failed == 2
        certificate = bench.identity.certificate
        # Every leaf from here on, so that however fast it retries there is a moment to look at.
        bench.issuer.refuses.update(b"leaf %d" % number for number in range(4, 1000))
        bench.identity._hurry.set()
        await until(lambda: bench.identity.refreshes_failed >= 3)
        assert bench.identity.certificate is certificate
        assert bench.identity.is_ready
        bench.issuer.refuses.clear()
        await until(lambda: bench.identity.refreshes_ok == 2)
        assert bench.identity.certificate is not certificate
    assert any("no issuer" in line for line in bench.lines)
    assert any("unable to get local issuer certificate" in line for line in bench.lines)


@pytest.mark.asyncio
async def test_a_missing_token_is_a_failure_in_words(bench: Bench) -> None:
    bench.token.unlink()
    async with bench:
        await until(lambda: bench.identity.refreshes_failed >= 2)
        assert any("No such file" in line for line in bench.lines)
        bench.token.write_text("late")
        await asyncio.wait_for(bench.identity.wait_ready(), 5)


def swap(bench: Bench, content: bytes) -> None:
    """As the kubelet does it: a new file under another name, renamed over the old."""
    new = bench.file.with_name("..data_tmp")
    new.write_bytes(content)
    os.replace(new, bench.file)


@pytest.mark.asyncio
async def test_new_anchors_are_trusted_at_once_and_reported_soon(bench: Bench) -> None:
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
        swap(bench, PEM * 2)
        await until(lambda: len(bench.issuer.loaded) >= 2)
        assert bench.issuer.loaded[1] == ([b"leaf 1", b"issuer"], b"key of " + NAME.encode(), PEM * 2)
        await until(lambda: len(bench.issuer.requests) == 2)
    assert bench.bundle.cell.value is not None
    assert bench.issuer.requests[1].trust_bundle_sha256 == bench.bundle.cell.value.sha256


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("old_issuer_until", "asked"),
    [(0, 4), (1, 2), (2, 3), (3, 4), (4, 4)],
    ids=["none to come", "there already", "after one pause", "after both", "too late to be waited for"],
)
async def test_new_anchors_are_a_reason_to_wait_for_another_issuer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, old_issuer_until: int, asked: int
) -> None:
    """Step two of a rotation: the kubelet brings the bundle here before it brings identity its issuer."""
    monkeypatch.setattr(module, "STALE_ISSUER_PAUSES", (0.02, 0.03))
    bench.issuer.old_issuer_until = old_issuer_until
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
        swap(bench, PEM * 2)
        await until(lambda: bench.identity.refreshes_ok == asked)
        await asyncio.sleep(0.15)
    assert bench.identity.refreshes_ok == asked


@pytest.mark.asyncio
async def test_anchors_that_do_not_fit_our_leaf_wait_for_a_leaf_that_does(bench: Bench) -> None:
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
        bench.issuer.refuses = {b"leaf 1"}
        swap(bench, PEM * 2)
        await until(lambda: bench.identity.refreshes_ok == 2)
    assert [bundle for _, _, bundle in bench.issuer.loaded] == [PEM, PEM * 2]
    assert any("does not fit our certificate" in line for line in bench.lines)


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"nonsense", b"x" * (2 << 20) + PEM])
async def test_a_bundle_that_is_none_leaves_the_old_one(bench: Bench, content: bytes) -> None:
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
        swap(bench, content)
        await until(lambda: any("trust bundle unreadable" in line for line in bench.lines))
        bench.file.unlink()
        await asyncio.sleep(0.05)
    assert bench.bundle.cell.value is not None
    assert bench.bundle.cell.value.pem == PEM
    assert len(bench.issuer.loaded) == 1


@pytest.mark.asyncio
async def test_a_bundle_that_comes_late_is_waited_for(bench: Bench) -> None:
    bench.file.unlink()
    async with bench:
        await asyncio.sleep(0.05)
        assert not bench.issuer.requests
        bench.file.write_bytes(PEM)
        await asyncio.wait_for(bench.identity.wait_ready(), 5)


@pytest.mark.asyncio
async def test_a_key_process_that_fails_is_tried_again(bench: Bench) -> None:
    real, tries = bench.generate, []

    async def fail_once(identity: str) -> KeyPair:
        tries.append(identity)
        if len(tries) == 1:
            raise KeyGenerationError("no entropy")
        return await real(identity)

    bench.identity._generate = fail_once
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
    assert any("no entropy" in line for line in bench.lines)


@pytest.mark.asyncio
async def test_it_is_counted(bench: Bench) -> None:
    bench.issuer.errors = [OSError("no route")]
    async with bench:
        await asyncio.wait_for(bench.identity.wait_ready(), 5)
    text = b"".join(render(bench.identity.families())).decode()
    assert 'control_identity_cert_refreshes_total{result="ok"} 1\n' in text
    assert 'control_identity_cert_refreshes_total{result="error"} 1\n' in text
    assert "control_identity_cert_expiration_timestamp_seconds 6000\n" in text


@pytest.mark.parametrize(
    ("remaining", "dice", "delay"),
    [
        (1000, 0.0, 700),
        (1000, 0.5, 650),
        (1000, 0.999999, 600),
        (60, 0.0, 42),
        (5, 0.5, 10),
        (-100, 0.5, 10),
        (10**7, 0.5, 86400),
    ],
)
def test_renewal_is_at_seventy_percent_of_what_is_left_or_earlier(remaining: float, dice: float, delay: float) -> None:
    assert refresh_delay(remaining, 10, 86400, dice) == pytest.approx(delay, abs=0.01)


@pytest.mark.asyncio
async def test_the_child_makes_a_p256_key_and_a_request_for_the_name() -> None:
    pair = await generate(NAME)
    key = serialization.load_der_private_key(pair.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    request = x509.load_der_x509_csr(pair.request)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.DNSName(NAME)]
    assert (await generate(NAME)).key != pair.key
    assert "key=" not in repr(pair)


@pytest.mark.asyncio
async def test_a_name_that_no_certificate_can_carry_is_an_error_in_words() -> None:
    with pytest.raises(KeyGenerationError, match="ended with 1"):
        await generate("ünï.demo")


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\5abc", b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_torn_pipe_gives_no_key(data: bytes) -> None:
    with pytest.raises(KeyGenerationError, match="no key"):
        parts_from(data)


def test_the_key_process_needs_a_name() -> None:
    done = subprocess.run([sys.executable, "-m", "proxy.tls.keys"], capture_output=True, check=False)
    assert done.returncode == 64
    assert done.stdout == b""


def test_the_sidecar_half_imports_no_cryptography() -> None:
    script = (
        "import sys; before = set(sys.modules)  # an editable install brings modules of its own\n"
        "import proxy.control.identity, proxy.control.destination, proxy.control.client, proxy.admin.server\n"
        "import proxy.control.resolving, proxy.settings\n"
        "heavy = ('cryptography', 'google.protobuf', 'http', 'email', 'urllib', 'grpc')\n"
        "print([name for name in heavy if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
