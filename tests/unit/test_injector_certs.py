"""The webhook's certificate in a cluster: made once, loaded live, renewed by the leader, known to the API server
first.
"""

import asyncio
import base64
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509

from components.injector import certs as module
from components.injector.certs import SECRET, WebhookCertificates, server_context
from components.injector.webhook_ca import Material, make_material
from tests.kit.fake_api import FakeApi, eventually

NAMES = ("injector.tulle.svc",)
CONFIGURATIONS = ("tulle-injector", "tulle-injector-annotated")


def configuration(name: str, *webhooks: str) -> dict[str, Any]:
    service = {"name": "injector", "namespace": "tulle"}
    return {
        "metadata": {"name": name},
        "webhooks": [{"name": each, "clientConfig": {"service": service}} for each in webhooks],
    }


class Replica:
    """One injector's certificates."""

    def __init__(self, api: FakeApi) -> None:
        self.context = server_context()
        self.certificates = WebhookCertificates(api.kube(), "tulle", NAMES, CONFIGURATIONS, self.context)

    @contextlib.asynccontextmanager
    async def running(self, leading: bool = True) -> AsyncIterator["Replica"]:
        tasks = [asyncio.ensure_future(self.certificates.run())]
        if leading:
            tasks.append(asyncio.ensure_future(self.certificates.lead()))
        try:
            await asyncio.wait_for(self.certificates.loaded.wait(), 5)
            yield self
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def serial(self) -> int:
        """Which certificate a new connection is shown."""
        client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_side.check_hostname, client_side.verify_mode = False, ssl.CERT_NONE
        c_in, c_out, s_in, s_out = (ssl.MemoryBIO() for _ in range(4))
        client = client_side.wrap_bio(c_in, c_out)
        server = self.context.wrap_bio(s_in, s_out, server_side=True)
        for _ in range(3):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                s_in.write(c_out.read())
                c_in.write(s_out.read())
        found = client.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found).serial_number


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def stored(api: FakeApi) -> Material:
    secret = api.get("secrets", SECRET, "tulle")
    assert secret is not None
    return Material.from_data({key: base64.b64decode(value) for key, value in secret["data"].items()})


def store(api: FakeApi, material: Material | dict[str, bytes]) -> None:
    data = material.as_data() if isinstance(material, Material) else material
    body = {
        "metadata": {"name": SECRET},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
    api.put("secrets", body, "tulle")


def serial(material: Material) -> int:
    return x509.load_pem_x509_certificate(material.certificate).serial_number


def bundles(api: FakeApi) -> set[bytes]:
    found = [body for (plural, _, _), body in api.objects.items() if plural == "mutatingwebhookconfigurations"]
    return {base64.b64decode(each["clientConfig"].get("caBundle", "")) for body in found for each in body["webhooks"]}


async def test_the_first_replica_makes_the_secret_and_the_others_use_it(api: FakeApi) -> None:
    async with Replica(api).running(leading=False) as one, Replica(api).running(leading=False) as other:
        assert one.serial() == other.serial() == serial(stored(api))
        assert api.requests.count(("POST", "/api/v1/namespaces/tulle/secrets")) == 1


async def test_two_replicas_that_start_together_agree(api: FakeApi) -> None:
    replicas = [Replica(api) for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(each.running(leading=False)) for each in replicas))
        assert {each.serial() for each in replicas} == {serial(stored(api))}


async def test_the_leader_writes_the_bundle_into_every_webhook(api: FakeApi) -> None:
    api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed", "annotated"))
    async with Replica(api).running():
        await eventually("the bundle", lambda: bundles(api) == {stored(api).ca_bundle})
        api.put("mutatingwebhookconfigurations", configuration("tulle-injector-annotated", "annotated"))
        await eventually("the bundle of the second", lambda: bundles(api) == {stored(api).ca_bundle})


async def test_a_bundle_that_somebody_resets_is_written_again(api: FakeApi) -> None:
    api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed"))
    async with Replica(api).running():
        await eventually("the bundle", lambda: bundles(api) == {stored(api).ca_bundle})
        api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed"))
        await eventually("the bundle again", lambda: bundles(api) == {stored(api).ca_bundle})


async def test_other_webhook_configurations_are_left_alone(api: FakeApi) -> None:
    api.put("mutatingwebhookconfigurations", configuration("linkerd-proxy-injector-webhook-config", "linkerd"))
    async with Replica(api).running():
        await asyncio.sleep(0.1)
        assert bundles(api) == {b""}


async def test_a_leaf_that_is_due_is_renewed_and_loaded_by_all(api: FakeApi) -> None:
    old = make_material(NAMES, datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=25))
    store(api, old)
    async with Replica(api).running(leading=False) as follower:
        assert follower.serial() == serial(old)
        async with Replica(api).running() as leader:
            await eventually("the new leaf", lambda: serial(stored(api)) != serial(old))
            assert stored(api).ca_bundle == old.ca_bundle
            await eventually("everywhere", lambda: leader.serial() == follower.serial() == serial(stored(api)))


async def test_a_new_ca_is_known_to_the_api_server_before_it_is_used(api: FakeApi) -> None:
    api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed"))
    old = make_material(NAMES, datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=300))
    store(api, old)
    async with Replica(api).running():
        await eventually("the new CA", lambda: stored(api).ca_bundle != old.ca_bundle)
        await eventually("the bundle", lambda: bundles(api) == {stored(api).ca_bundle})
    writes = [path.split("/")[-1] for method, path in api.requests if method in ("PUT", "PATCH")]
    assert writes[:2] == ["tulle-injector", SECRET]
    assert len(x509.load_pem_x509_certificates(stored(api).ca_bundle)) == 2


async def test_a_broken_secret_is_made_anew_and_the_one_in_use_kept_meanwhile(api: FakeApi) -> None:
    async with Replica(api).running(leading=False) as follower:
        before = follower.serial()
        store(api, {"tls.crt": b"junk"})
        await asyncio.sleep(0.05)
        assert follower.serial() == before
        async with Replica(api).running() as leader:
            await eventually("a new one", lambda: serial_or_none(api))
            await eventually("everywhere", lambda: leader.serial() == follower.serial() == serial(stored(api)))


def serial_or_none(api: FakeApi) -> int | None:
    secret = api.get("secrets", SECRET, "tulle")
    return serial(stored(api)) if secret and "ca.key" in secret["data"] else None


async def test_a_deleted_secret_comes_back(api: FakeApi) -> None:
    async with Replica(api).running() as replica:
        api.remove("secrets", SECRET, "tulle")
        await eventually("the secret", lambda: api.get("secrets", SECRET, "tulle"))
        await eventually("loaded", lambda: replica.serial() == serial(stored(api)))


async def test_an_outage_is_sat_through(api: FakeApi) -> None:
    api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed"))
    async with Replica(api).running():
        await eventually("the bundle", lambda: bundles(api) == {stored(api).ca_bundle})
        api.fail = [503] * 5
        api.break_watches()
        api.put("mutatingwebhookconfigurations", configuration("tulle-injector", "meshed"))
        await eventually("the bundle again", lambda: bundles(api) == {stored(api).ca_bundle})
