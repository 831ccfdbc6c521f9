"""Watch over a real gRPC connection, from a fake API server to the message: the whole of destination but its
process.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from components.destination import server as module
from components.destination.cluster import Cluster
from components.destination.index import Index
from components.destination.model import Mesh
from components.destination.ports import parse_ports
from components.destination.publisher import Publisher
from components.destination.server import DestinationService, make_server
from proxy.api import destination_pb2 as pb
from proxy.api import destination_pb2_grpc
from tests.kit.facts import endpoint, raw_pod
from tests.kit.fake_api import FakeApi, eventually
from tests.kit.waiting import slowness

SERVICE: dict[str, Any] = {
    "metadata": {"name": "web"},
    "spec": {"clusterIP": "10.1.0.1", "clusterIPs": ["10.1.0.1"], "ports": [{"port": 80, "name": "http"}]},
}


def slice_of(*endpoints: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


class Running:
    """A destination server on a fake cluster, and a proxy that watches."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        index = Index("cluster.local", parse_ports("25"))
        self.publisher = Publisher(index)
        mesh = Mesh("tulle", "cluster.local")
        self.cluster = Cluster(api.kube(), mesh, index, self.publisher)
        self.server = make_server(DestinationService(self.publisher, self.cluster.synced, mesh))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.tasks: list[asyncio.Task[None]] = []

    def sync(self) -> None:
        """Let the caches fill."""
        self.tasks.append(asyncio.ensure_future(self.cluster.run()))

    def watch(self, address: str) -> Any:
        stub = destination_pb2_grpc.DestinationStub(self.channel)  # type: ignore[no-untyped-call]
        return stub.Watch(pb.WatchRequest(address=address)).__aiter__()

    def watch_as(self, identity: str, namespace: str) -> Any:
        """As the proxy in front of the server passes it on."""
        stub = destination_pb2_grpc.DestinationStub(self.channel)  # type: ignore[no-untyped-call]
        request = pb.WatchRequest(address="10.1.0.1:80", workload=pb.Workload(namespace=namespace, pod="web-1"))
        return stub.Watch(request, metadata=(("l5d-client-id", identity),)).__aiter__()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Running"]:
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        try:
            yield self
        finally:
            await self.channel.close()
            await self.server.stop(None)
            for task in self.tasks:
                task.cancel()


async def next_of(stream: Any, seconds: float = 5.0) -> pb.Update:
    async with asyncio.timeout(seconds):
        message: pb.Update = await anext(stream)
    return message


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    api = FakeApi()
    api.put("namespaces", {"metadata": {"name": "demo"}})
    async with Running(api).running() as found:
        yield found


async def test_the_life_of_a_target(running: Running) -> None:
    running.sync()
    stream = running.watch("10.1.0.1:80")
    assert (await next_of(stream)).snapshot.kind == pb.Kind.KIND_EXTERNAL
    running.api.put("services", SERVICE, "demo")
    first = await next_of(stream)
    assert (first.snapshot.kind, first.snapshot.authority) == (pb.Kind.KIND_SERVICE, "web.demo.svc.cluster.local:80")
    running.api.put("endpointslices", slice_of(endpoint("10.0.0.1", "a", uid="u")), "demo")
    running.api.put("pods", raw_pod("a", "10.0.0.1", meshed=True, uid="u"), "demo")
    (found,) = (await next_of(stream)).delta.upsert
    assert found.address == "10.0.0.1:8080"
    assert found.identity == "web.demo.serviceaccount.identity.tulle.cluster.local"
    assert found.labels["pod"] == "a"
    running.api.remove("pods", "a", "demo")
    assert list((await next_of(stream)).delta.remove) == ["10.0.0.1:8080"]
    running.api.remove("services", "web", "demo")
    assert (await next_of(stream)).snapshot.kind == pb.Kind.KIND_EXTERNAL


async def test_a_change_reaches_the_stream_within_a_tenth_of_a_second(running: Running) -> None:
    running.sync()
    running.api.put("services", SERVICE, "demo")
    stream = running.watch("10.1.0.1:80")
    await next_of(stream)
    loop = asyncio.get_running_loop()
    took = []
    for number in range(10):
        begun = loop.time()
        running.api.put("endpointslices", slice_of(endpoint(f"10.0.0.{number + 1}")), "demo")
        await next_of(stream)
        took.append(loop.time() - begun)
    assert sorted(took)[5] < 0.1 * slowness(), took


async def test_a_stream_is_held_until_the_caches_are_filled(running: Running) -> None:
    running.api.put("services", SERVICE, "demo")
    stream = running.watch("10.1.0.1:80")
    held = asyncio.ensure_future(next_of(stream))
    await asyncio.sleep(0.1)
    assert not held.done(), "answered before anything is known, a service would look external"
    assert running.cluster.waiting_for() == "caches of namespaces, pods, services, endpointslices, externalworkloads"
    running.sync()
    assert (await held).snapshot.kind == pb.Kind.KIND_SERVICE
    assert running.cluster.waiting_for() is None


async def test_a_stream_is_not_held_for_ever(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYNC_SECONDS", 0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await next_of(running.watch("10.1.0.1:80"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("address", ["", "web.demo:80", "10.0.0.1", "10.0.0.1:99999"])
async def test_what_is_no_address_is_refused(running: Running, address: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await next_of(running.watch(address))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not" in (caught.value.details() or "")


async def test_streams_are_bounded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WATCHES", 1)
    running.sync()
    await next_of(running.watch("10.1.0.1:80"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await next_of(running.watch("10.1.0.2:80"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_shutdown_ends_streams_in_order(running: Running) -> None:
    running.sync()
    stream = running.watch("10.1.0.1:80")
    await next_of(stream)
    running.publisher.close()
    with pytest.raises(StopAsyncIteration):
        await next_of(stream)


async def test_a_watcher_that_goes_is_forgotten(running: Running) -> None:
    running.sync()
    stream = running.watch("10.1.0.1:80")
    await next_of(stream)
    assert running.publisher.watches == 1
    await running.channel.close()
    await eventually("no watcher", lambda: running.publisher.watches == 0)


async def test_an_outage_of_the_api_server_empties_nothing(running: Running) -> None:
    running.api.put("services", SERVICE, "demo")
    running.api.put("endpointslices", slice_of(endpoint("10.0.0.1")), "demo")
    running.sync()
    stream = running.watch("10.1.0.1:80")
    await next_of(stream)
    running.api.fail = [503] * 8
    running.api.break_watches()
    await eventually("the failures", lambda: not running.api.fail)
    (message,) = [await next_of(running.watch("10.1.0.1:80"))]
    assert [each.address for each in message.snapshot.endpoints] == ["10.0.0.1:8080"]


async def test_a_workload_asks_for_itself_only(running: Running) -> None:
    running.sync()
    web = "web.demo.serviceaccount.identity.tulle.cluster.local"
    assert (await next_of(running.watch_as(web, "demo"))).snapshot.kind == pb.Kind.KIND_EXTERNAL
    for identity, namespace, reason in (
        (web, "payments", "not of its own"),
        ("web.demo.serviceaccount.identity.tulle.other.domain", "demo", "no workload of this mesh"),
        ("evil.example.com", "demo", "no workload of this mesh"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await next_of(running.watch_as(identity, namespace))
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert reason in (caught.value.details() or "")
