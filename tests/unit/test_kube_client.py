"""The Kubernetes client: paths, pages, errors by name, watches line by line."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from components.kube import client
from components.kube.client import ENDPOINT_SLICES, PODS, Kube, KubeError
from tests.kit.fake_api import FakeApi


class Thing(msgspec.Struct, frozen=True):
    metadata: dict[str, Any]


def serving(answer: Any) -> Kube:
    transport = httpx2.MockTransport(answer)
    return Kube(httpx2.AsyncClient(transport=transport, base_url="http://fake"), "http://fake")


def test_paths_of_the_core_group_and_of_others() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("demo", "web", "log") == "/api/v1/namespaces/demo/pods/web/log"
    assert ENDPOINT_SLICES.path("demo") == "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices"


async def test_a_list_reads_every_page() -> None:
    api = FakeApi()
    api.page = 2
    for number in range(5):
        api.put("pods", {"metadata": {"name": f"p{number}"}}, "demo")
    version, found = await api.kube().list(PODS, Thing)
    assert [each.metadata["name"] for each in found] == ["p0", "p1", "p2", "p3", "p4"]
    assert version == str(api.version)
    assert api.requests.count(("GET", "/api/v1/pods")) == 3


async def test_what_the_api_server_refuses_has_its_code_and_words() -> None:
    api = FakeApi()
    kube = api.kube()
    with pytest.raises(KubeError, match=r"pods 'none' not found.*NotFound, 404") as caught:
        await kube.get(PODS, Thing, "none", "demo")
    assert caught.value.not_found
    await kube.create(PODS, {"metadata": {"name": "p"}}, "demo")
    with pytest.raises(KubeError) as caught:
        await kube.create(PODS, {"metadata": {"name": "p"}}, "demo")
    assert caught.value.conflict
    await kube.delete(PODS, "p", "demo")
    await kube.delete(PODS, "p", "demo")


async def test_an_api_server_that_does_not_answer_is_an_error_like_others() -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with pytest.raises(KubeError, match=r"ConnectError refused.*Unreachable") as caught:
        await serving(refuse).get(PODS, Thing, "p", "demo")
    assert caught.value.code == 0


@pytest.mark.parametrize(
    ("method", "repeatable", "error", "asked"),
    [
        ("GET", False, httpx2.RemoteProtocolError("Server disconnected"), 2),
        ("POST", True, httpx2.ReadError(""), 2),
        ("POST", False, httpx2.RemoteProtocolError("Server disconnected"), 1),
        ("GET", False, httpx2.ReadTimeout(""), 1),
    ],
)
async def test_a_connection_that_breaks_is_no_outage_for_what_may_be_asked_twice(
    method: str, repeatable: bool, error: httpx2.HTTPError, asked: int
) -> None:
    seen = 0

    def once_broken(_: httpx2.Request) -> httpx2.Response:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise error
        return httpx2.Response(200, json={})

    request = serving(once_broken).request(method, "/x", repeatable=repeatable)
    if asked == 2:
        assert await request == b"{}"
    else:
        with pytest.raises(KubeError):
            await request
    assert seen == asked


async def test_an_answer_that_is_no_status_is_still_told() -> None:
    with pytest.raises(KubeError, match="upstream sick") as caught:
        await serving(lambda _: httpx2.Response(502, content=b"<html>upstream sick")).version()
    assert caught.value.code == 502


async def test_the_version_is_read_without_its_suffix() -> None:
    assert await FakeApi().kube().version() == (1, 34)


class Chunks(httpx2.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


async def watched(*chunks: bytes) -> list[tuple[str, str, Any]]:
    kube = serving(lambda _: httpx2.Response(200, stream=Chunks(*chunks)))
    return [(each.type, each.version, each.value) async for each in kube.watch(PODS, Thing, "1", 10)]


ADDED = b'{"type":"ADDED","object":{"metadata":{"name":"p","resourceVersion":"7"}}}\n'
BOOKMARK = b'{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}\n'


async def test_events_may_come_in_any_pieces() -> None:
    together = await watched(ADDED + BOOKMARK)
    assert [each[:2] for each in together] == [("ADDED", "7"), ("BOOKMARK", "9")]
    assert together[1][2] is None
    single_bytes = [bytes([byte]) for byte in ADDED + BOOKMARK]
    assert await watched(*single_bytes) == together
    assert await watched(ADDED[:-1], b"\n\n" + BOOKMARK) == together


async def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(KubeError) as caught:
        await watched(ADDED, b'{"type":"ERROR","object":{"code":410,"reason":"Expired","message":"too old"}}\n')
    assert caught.value.gone


async def test_an_object_of_another_shape_is_an_error_that_can_be_waited_for() -> None:
    with pytest.raises(KubeError, match="not of the shape"):
        await watched(b'{"type":"ADDED","object":{"metadata":[]}}\n')
    with pytest.raises(KubeError, match="not of the shape"):
        await serving(lambda _: httpx2.Response(200, content=b'{"metadata":{},"items":[{}]}')).list(PODS, Thing)


async def test_an_endless_line_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_LINE", 100)
    with pytest.raises(KubeError, match="longer than 100 bytes"):
        await watched(b"x" * 60, b"x" * 60)
