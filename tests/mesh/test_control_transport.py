"""The control client over the proxy's own transport: mutual TLS with a live identity, and refusals when names do not
fit.

The far side is what a control-plane pod shows: TLS ended by another program (Python's ssl here), plain gRPC behind it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc.aio
import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.api import destination_pb2, identity_pb2
from proxy.control.backoff import Backoff
from proxy.control.client import ControlClient
from proxy.control.destination import Destination
from proxy.control.dialing import dialer
from proxy.control.identity import Identity
from proxy.control.resolving import resolve
from proxy.control.trust import TrustBundle
from proxy.io.reactor import Reactor
from proxy.settings import Address
from proxy.telemetry.log import Log
from proxy.tls.contexts import TLSContexts
from proxy.wire import grpc as framing
from tests.kit.certificates import BOTH, usage
from tests.kit.peers import Authority, spiffe_id

IDENTITY = "identity.tulle.serviceaccount.identity.tulle.cluster.local"
WEB = "web.demo.serviceaccount.identity.tulle.cluster.local"


def leaf(ca: trustme.CA, csr_der: bytes, name: str, lifetime: timedelta) -> tuple[bytes, int]:
    """What identity does: names of its own, the key of the request."""
    request = x509.load_der_x509_csr(csr_der)
    issuer_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    until = datetime.now(UTC) + lifetime
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(seconds=20))
        .not_valid_after(until)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.UniformResourceIdentifier(spiffe_id(name))]),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(BOTH), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER), int(until.timestamp())


class ControlPlane:
    """Both services behind one TLS port; which clients came, and with which certificate."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.name = IDENTITY
        self.lifetime = timedelta(hours=24)
        self.certify_name = WEB
        self.peers: list[str | None] = []
        self.certified = 0

    async def certify(self, request: identity_pb2.CertifyRequest, context: Any) -> identity_pb2.CertifyResponse:
        self.certified += 1
        der, until = leaf(self.ca, request.certificate_signing_request, self.certify_name, self.lifetime)
        return identity_pb2.CertifyResponse(leaf_certificate=der, valid_until=until)

    async def watch(self, request: destination_pb2.WatchRequest, context: Any) -> AsyncIterator[Any]:
        endpoint = destination_pb2.Endpoint(address=request.address, identity=WEB)
        kind = destination_pb2.KIND_SERVICE
        yield destination_pb2.Update(snapshot=destination_pb2.Snapshot(kind=kind, endpoints=[endpoint]))
        await asyncio.sleep(60)

    @asynccontextmanager
    async def run(self, folder: Path) -> AsyncIterator[int]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("tulle.identity.v1.Identity", {
                "Certify": grpc.unary_unary_rpc_method_handler(
                    self.certify, identity_pb2.CertifyRequest.FromString, identity_pb2.CertifyResponse.SerializeToString
                )}),
            grpc.method_handlers_generic_handler("tulle.destination.v1.Destination", {
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self.watch, destination_pb2.WatchRequest.FromString, destination_pb2.Update.SerializeToString
                )}),
        ))  # fmt: skip
        plain = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        authority = Authority(self.ca.cert_pem.bytes(), self.ca.private_key_pem.bytes())
        own = authority.leaf(self.name)
        (folder / "own.pem").write_bytes(own.chain + own.key)
        context.load_cert_chain(folder / "own.pem")
        self.ca.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["tulle/opaque"])

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            certificate = writer.get_extra_info("peercert")
            self.peers.append(dict(certificate["subjectAltName"])["DNS"] if certificate else None)
            onward = await asyncio.open_connection("127.0.0.1", plain)

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                try:
                    while data := await source.read(65536):
                        sink.write(data)
                        await sink.drain()
                except OSError:
                    pass
                sink.close()

            await asyncio.gather(copy(reader, onward[1]), copy(onward[0], writer))

        front = await asyncio.start_server(relay, "127.0.0.2", 0, ssl=context)
        try:
            yield front.sockets[0].getsockname()[1]
        finally:
            front.close()
            await server.stop(None)


class Sidecar:
    """The control half of a proxy. 127.0.0.2 stands for another pod: the dialer is told that nothing is loopback."""

    def __init__(self, plane: ControlPlane, port: int, folder: Path, server_name: str) -> None:
        self.lines: list[str] = []
        self.log = Log("debug", write=self.lines.append)
        (folder / "token").write_text("token")
        (folder / "ca.crt").write_bytes(plane.ca.cert_pem.bytes())
        self.contexts = TLSContexts(WEB)
        self.bundle = TrustBundle(str(folder / "ca.crt"), self.log, interval=0.05)
        self.reactor = Reactor(asyncio.get_running_loop())
        self.clients: list[ControlClient] = []
        self.address = RemoteAddress("127.0.0.2", port)

        def client(may_be_anonymous: bool) -> ControlClient:
            dial = dialer(self.reactor, self.contexts, self.bundle, server_name, may_be_anonymous=may_be_anonymous)
            made = ControlClient(
                self.address, dial=dial, resolve=self.resolve, log=self.log, backoff=Backoff(0.01, 0.1)
            )
            self.clients.append(made)
            return made

        self.identity = Identity(
            WEB, client=client(True), contexts=self.contexts, bundle=self.bundle, token_file=str(folder / "token"),
            log=self.log, min_refresh=0.2,
        )  # fmt: skip
        self.destination_client = client(False)
        self.destination = Destination(self.destination_client, namespace="demo", pod="web-1", node="n", log=self.log)
        self.tasks: list[asyncio.Task[None]] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        return [RemoteAddress(host, port)]

    async def __aenter__(self) -> Self:
        self.tasks = [asyncio.create_task(self.bundle.run()), asyncio.create_task(self.identity.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for client in self.clients:
            await client.close()
        self.reactor.close()


class RemoteAddress(Address):
    """An address on this machine that is treated as another pod's."""

    @property
    def is_loopback(self) -> bool:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def run(scenario: Any) -> None:
    uvloop.run(scenario)


def test_certificates_are_asked_for_by_token_and_then_shown_to_discovery(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        async with plane.run(tmp_path) as port, Sidecar(plane, port, tmp_path, IDENTITY) as sidecar:
            await asyncio.wait_for(sidecar.identity.wait_ready(), 15)
            assert plane.peers == [None]
            watch, cell = sidecar.destination.watch_cell("10.0.0.1:80")
            state = await asyncio.wait_for(cell.first(), 10)
            assert state.endpoints["10.0.0.1:80"].identity == WEB
            assert plane.peers == [None, WEB]
            watch.close()

    run(scenario())


def test_a_connection_outlives_the_certificate_it_began_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        plane.lifetime = timedelta(seconds=3)
        async with plane.run(tmp_path) as port, Sidecar(plane, port, tmp_path, IDENTITY) as sidecar:
            await asyncio.wait_for(sidecar.identity.wait_ready(), 15)
            watch, cell = sidecar.destination.watch_cell("10.0.0.1:80")
            await asyncio.wait_for(cell.first(), 10)
            await until(lambda: plane.certified >= 3)
            await until(lambda: sidecar.contexts.generation >= 3)
            assert sidecar.destination_client.connects == 1
            assert sidecar.destination_client.is_connected
            assert plane.peers.count(WEB) == 1
            watch.close()

    run(scenario())


def test_a_server_of_another_name_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        plane.name = "impostor.tulle.serviceaccount.identity.tulle.cluster.local"
        async with plane.run(tmp_path) as port, Sidecar(plane, port, tmp_path, IDENTITY) as sidecar:
            await until(lambda: any("did not prove" in line for line in sidecar.lines))
            assert not sidecar.identity.is_ready
            assert plane.certified == 0

    run(scenario())


def test_a_server_of_another_mesh_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        async with plane.run(tmp_path) as port:
            other = ControlPlane()
            async with Sidecar(other, port, tmp_path, IDENTITY) as sidecar:
                await until(lambda: any("control connection failed" in line for line in sidecar.lines))
                assert not sidecar.identity.is_ready
                assert plane.certified == 0

    run(scenario())


def test_without_a_certificate_discovery_is_not_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        async with plane.run(tmp_path) as port:
            sidecar = Sidecar(plane, port, tmp_path, IDENTITY)
            with pytest.raises(framing.CallError, match="DEADLINE_EXCEEDED"):
                await sidecar.destination_client.unary("/x/Y", b"", 0.3)
            assert any("no certificate yet" in line for line in sidecar.lines)
            assert plane.peers == []
            for client in sidecar.clients:
                await client.close()
            sidecar.reactor.close()

    run(scenario())


def test_loopback_is_dialled_in_plaintext(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen: list[bytes] = []

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        reactor = Reactor(asyncio.get_running_loop())
        log = Log(write=lambda _: None)
        bundle = TrustBundle(str(tmp_path / "none"), log)
        client = ControlClient(
            Address("127.0.0.1", server.sockets[0].getsockname()[1]),
            dial=dialer(reactor, TLSContexts(WEB), bundle, IDENTITY), resolve=resolve, log=log,
        )  # fmt: skip
        with pytest.raises(framing.CallError):
            await client.unary("/x/Y", b"", 3)
        assert seen[0].startswith(b"PRI * HTTP/2.0\r\n")
        await client.close()
        reactor.close()
        server.close()

    run(scenario())


def test_a_leaf_of_another_name_is_not_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        plane.certify_name = "other.demo.serviceaccount.identity.tulle.cluster.local"
        async with plane.run(tmp_path) as port, Sidecar(plane, port, tmp_path, IDENTITY) as sidecar:
            await until(lambda: sidecar.identity.refreshes_failed >= 1)
            assert not sidecar.identity.is_ready
            assert sidecar.contexts.client is None
            plane.certify_name = WEB
            await asyncio.wait_for(sidecar.identity.wait_ready(), 15)

    run(scenario())


def test_a_leaf_that_is_over_is_replaced_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        plane = ControlPlane()
        plane.lifetime = timedelta(seconds=1)
        async with plane.run(tmp_path) as port, Sidecar(plane, port, tmp_path, IDENTITY) as sidecar:
            await asyncio.wait_for(sidecar.identity.wait_ready(), 15)
            sidecar.tasks.pop().cancel()
            await asyncio.sleep(1.5)
            plane.lifetime = timedelta(hours=1)
            sidecar.tasks.append(asyncio.create_task(sidecar.identity.run()))
            await until(lambda: sidecar.identity.refreshes_ok >= 2)
            _, cell = sidecar.destination.watch_cell("10.0.0.1:80")
            await asyncio.wait_for(cell.first(), 10)

    run(scenario())
