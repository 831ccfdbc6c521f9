"""Machines outside the cluster at identity, over a real gRPC connection: a token counts once, a leaf renews itself, and
every other way in is refused with a reason.
"""

import asyncio
import datetime
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.external import joining
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.machines import Machines
from components.identity.server import IdentityService, Settings, make_server
from proxy.api import identity_pb2 as pb
from proxy.api import identity_pb2_grpc
from proxy.api.names import workload_identity
from tests.kit.authorities import authority, request
from tests.kit.facts import raw_external
from tests.kit.fake_api import FakeApi
from tests.unit.test_identity_server import Tokens

NAME = "machine.demo.serviceaccount.identity.tulle.cluster.local"
MINUTE = datetime.timedelta(minutes=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class World:
    """An API server with one ExternalWorkload, identity before it, and a machine with a key."""

    def __init__(self, api: FakeApi, port: int, issuers: IssuerFiles) -> None:
        self.api = api
        self.issuers = issuers
        self.port = port
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = identity_pb2_grpc.IdentityStub(self.channel)  # type: ignore[no-untyped-call]
        self.key = ec.generate_private_key(ec.SECP256R1())

    def offer(self, age: datetime.timedelta = datetime.timedelta(0), name: str = "vm") -> bytes:
        token = joining.new_token()
        found = self.api.get("externalworkloads", name, "demo")
        assert found is not None
        self.api.put("externalworkloads", joining.offered(found, token, now() - age, 10 * MINUTE), "demo")
        return token.encode()

    async def ask(self, **changes: Any) -> pb.CertifyResponse:
        key = changes.pop("key", self.key)
        csr = request(x509.DNSName(NAME), key=key)
        fields = {"identity": NAME, "certificate_signing_request": csr, "external_workload": "vm", **changes}
        answer: pb.CertifyResponse = await self.stub.Certify(pb.CertifyRequest(**fields))
        return answer

    async def refused(self, words: str, **changes: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(**changes)
        assert re.search(words, caught.value.details() or ""), caught.value.details()
        return str(caught.value.code().name)

    def status(self) -> dict[str, Any]:
        found = self.api.get("externalworkloads", "vm", "demo")
        assert found is not None
        status: dict[str, Any] = found["status"]
        return status


def chain_of(answer: pb.CertifyResponse) -> list[bytes]:
    return [answer.leaf_certificate, *answer.intermediate_certificates]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    day = datetime.timedelta(days=1)
    root = authority("root", start=now() - day, end=now() + 9 * day)
    issuer = authority("issuer", root, start=now() - day, end=now() + 9 * day)
    (tmp_path / "tls.crt").write_bytes(issuer.pem)
    (tmp_path / "tls.key").write_bytes(issuer.key_pem)
    (tmp_path / "bundle").write_bytes(root.pem)
    issuers = IssuerFiles(tmp_path, tmp_path / "bundle")
    issuers.read(now())
    api = FakeApi()
    api.put("externalworkloads", raw_external("vm", ready=False), "demo")
    settings = Settings("tulle", "cluster.local", datetime.timedelta(hours=24))
    limits = Limits(0.001, 4, 100, 1000, 0.0)
    server = make_server(IdentityService(settings, issuers, Tokens(), limits, None, Machines(api.kube())))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    found = World(api, port, issuers)
    yield found
    await found.channel.close()
    await server.stop(None)


async def test_a_token_is_spent_on_a_leaf_and_the_machine_is_ready(world: World) -> None:
    answer = await world.ask(token=world.offer())
    leaf = x509.load_der_x509_certificate(answer.leaf_certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert [(each["type"], each["status"]) for each in world.status()["conditions"]] == [("Ready", "True")]
    assert world.status()["join"]["tokenUsed"] is True


async def test_a_spent_token_is_worth_nothing_to_another_key(world: World) -> None:
    token = world.offer()
    await world.ask(token=token)
    await world.ask(token=token)  # the answer was lost on its way, and is asked for again
    other = ec.generate_private_key(ec.SECP256R1())
    assert await world.refused("was used already", token=token, key=other) == "UNAUTHENTICATED"


async def test_of_two_machines_with_one_token_one_comes_first(world: World) -> None:
    token = world.offer()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
    answers = await asyncio.gather(*(world.ask(token=token, key=key) for key in keys), return_exceptions=True)
    assert len([each for each in answers if isinstance(each, pb.CertifyResponse)]) == 1


@pytest.mark.parametrize("token", [b"", b"wrong", b"x" * 5_000])
async def test_a_wrong_token_is_answered_as_a_workload_that_is_not_there(world: World, token: bytes) -> None:
    world.offer()
    before = world.status()
    there = "this is not the join token of ExternalWorkload demo/vm; make one with"
    assert await world.refused(there, token=token) == "UNAUTHENTICATED"
    absent = there.replace("vm", "other")
    assert await world.refused(absent, token=token, external_workload="other") == "UNAUTHENTICATED"
    assert world.status() == before


async def test_a_token_of_another_workload(world: World) -> None:
    world.api.put("externalworkloads", raw_external("other", ready=False), "demo")
    await world.refused("is not the join token of ExternalWorkload demo/vm", token=world.offer(name="other"))


async def test_a_token_that_has_expired(world: World) -> None:
    await world.refused("the join token of .* expired at", token=world.offer(age=11 * MINUTE))
    assert "conditions" not in world.status() or world.status()["conditions"][0]["status"] == "False"


async def test_a_later_token_takes_the_place_of_an_earlier_one(world: World) -> None:
    first = world.offer()
    second = world.offer()
    await world.refused("is not the join token", token=first)
    await world.ask(token=second)


@pytest.mark.parametrize("name", ["../../pods/x", "A", "a/b", "x" * 300])
async def test_a_name_that_is_none_is_not_asked_for(world: World, name: str) -> None:
    asked = len(world.api.requests)
    assert await world.refused("no ExternalWorkload", token=b"t", external_workload=name) == "INVALID_ARGUMENT"
    assert len(world.api.requests) == asked


async def test_a_workload_that_is_somebody_else(world: World) -> None:
    name = "other.demo.serviceaccount.identity.tulle.cluster.local"
    token = world.offer()
    csr = request(x509.DNSName(name))
    await world.refused("spec.meshTLS.serverName", token=token, identity=name, certificate_signing_request=csr)
    assert world.status()["join"]["tokenUsed"] is False


async def test_no_machine_is_part_of_the_control_plane(world: World) -> None:
    name = "identity.tulle.serviceaccount.identity.tulle.cluster.local"
    world.api.put("externalworkloads", raw_external("vm", namespace="tulle", account="identity"), "tulle")
    csr = request(x509.DNSName(name))
    words = "no machine is part of the control plane"
    code = await world.refused(words, token=b"t", identity=name, certificate_signing_request=csr)
    assert code == "PERMISSION_DENIED"


async def test_a_token_is_not_spent_where_nothing_can_be_signed(world: World) -> None:
    token = world.offer()
    world.issuers.current = None
    assert await world.refused("no usable issuer", token=token) == "UNAVAILABLE"
    assert world.status()["join"]["tokenUsed"] is False


async def test_a_leaf_renews_itself_without_a_token(world: World) -> None:
    answer = await world.ask(token=world.offer())
    again = await world.ask(current_chain=chain_of(answer))
    assert again.leaf_certificate != answer.leaf_certificate


async def test_a_leaf_does_not_renew_another_key(world: World) -> None:
    answer = await world.ask(token=world.offer())
    other = ec.generate_private_key(ec.SECP256R1())
    assert await world.refused("of another key", current_chain=chain_of(answer), key=other) == "UNAUTHENTICATED"


async def test_a_leaf_does_not_outlive_its_workload(world: World) -> None:
    answer = await world.ask(token=world.offer())
    world.api.remove("externalworkloads", "vm", "demo")
    await world.refused("there is no ExternalWorkload demo/vm any more", current_chain=chain_of(answer))


async def test_the_machine_before_is_out_once_another_has_joined(world: World) -> None:
    answer = await world.ask(token=world.offer())
    token = world.offer()
    await world.ask(current_chain=chain_of(answer))  # offered is not spent
    await world.ask(token=token, key=ec.generate_private_key(ec.SECP256R1()))
    await world.refused("another machine has joined", current_chain=chain_of(answer))


async def test_a_leaf_of_a_strange_authority(world: World) -> None:
    await world.ask(token=world.offer())
    day = datetime.timedelta(days=1)
    strange = authority("root", start=now() - day, end=now() + day)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(strange.certificate.subject)
        .public_key(world.key.public_key())
        .serial_number(1)
        .not_valid_before(now() - MINUTE)
        .not_valid_after(now() + MINUTE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
    )
    assert isinstance(strange.key, ec.EllipticCurvePrivateKey)
    leaf = builder.sign(strange.key, hashes.SHA256())
    chain = [each.public_bytes(serialization.Encoding.DER) for each in (leaf, strange.certificate)]
    await world.refused("leads to no anchor", current_chain=chain)
    await world.refused("leads to no anchor", current_chain=chain[:1])


@pytest.mark.parametrize("chain", [[b"junk"], [b""], [b"x" * 20_000], [b"x"] * 20])
async def test_what_is_no_certificate(world: World, chain: list[bytes]) -> None:
    assert await world.refused("", current_chain=chain) == "UNAUTHENTICATED"


async def test_one_machines_flood_is_refused(world: World) -> None:
    answer = await world.ask(token=world.offer())
    for _ in range(3):
        await world.ask(current_chain=chain_of(answer))
    assert await world.refused("too many certificates", current_chain=chain_of(answer)) == "RESOURCE_EXHAUSTED"


async def test_without_an_api_server_nothing_is_spent(world: World) -> None:
    token = world.offer()
    world.api.fail = [500, 500]
    assert await world.refused("ExternalWorkload demo/vm", token=token) == "UNAVAILABLE"
    world.api.fail = []
    await world.ask(token=token)


def test_a_token_lives_for_a_quarter_of_an_hour_at_most() -> None:
    with pytest.raises(ValueError, match="at most 15 minutes"):
        joining.offered(raw_external("vm"), "t", now(), 16 * MINUTE)


async def test_a_change_in_between_is_a_conflict(world: World) -> None:
    token = world.offer()
    identity = workload_identity("machine", "demo", "tulle", "cluster.local")
    seen = await Machines(world.api.kube()).find("vm", identity)
    world.offer()
    with pytest.raises(joining.JoinError) as caught:
        await Machines(world.api.kube()).spend(seen, token, b"key", now())
    assert caught.value.reason == "conflict"
