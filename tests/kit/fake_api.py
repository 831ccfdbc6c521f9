"""A Kubernetes API server small enough to read, in memory: objects by path, watches, conflicts. For unit tests only."""

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from components.kube.client import Kube

Json = dict[str, Any]
_PATH = re.compile(
    r"/(?:api|apis)/(?P<api>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/status)?$"
)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, api: "FakeApi", plural: str, version: int, seconds: float) -> None:
        self._api = api
        self._seconds = seconds
        self._plural = plural
        self._version = version

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position, epoch = self._version, self._api.epoch
        deadline = asyncio.get_running_loop().time() + self._seconds
        while True:
            for version, plural, event in list(self._api.history):
                if version > position:
                    position = version
                    if plural == self._plural:
                        yield json.dumps(event).encode() + b"\n"
            if self._api.epoch != epoch:
                return
            self._api.news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._api.news.wait()
            except TimeoutError:
                return


class _Once(httpx2.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class FakeApi(httpx2.AsyncBaseTransport):
    """The server. `fail` makes the next requests fail, `break_watches` ends every watch, `forget` makes versions too
    old.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.history: list[tuple[int, str, Json]] = []
        self.requests: list[tuple[str, str]] = []
        self.news = asyncio.Event()
        self.version = 10
        self.oldest = 0
        self.epoch = 0
        self.fail: list[int] = []
        self.page = 0
        self.gone_in_stream = False

    def kube(self) -> Kube:
        """A client of this server."""
        return Kube(httpx2.AsyncClient(transport=self, base_url="http://fake"), "http://fake")

    def put(self, plural: str, body: Json, namespace: str = "") -> Json:
        """Create or replace, as somebody else would."""
        metadata = body.setdefault("metadata", {})
        if namespace:
            metadata.setdefault("namespace", namespace)
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        known = key in self.objects
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("uid", f"uid-{self.version}")
        self.objects[key] = copy.deepcopy(body)
        self._tell("MODIFIED" if known else "ADDED", plural, body)
        return copy.deepcopy(body)

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete, as somebody else would."""
        body = self.objects.pop((plural, namespace, name))
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", plural, body)

    def get(self, plural: str, name: str, namespace: str = "") -> Json | None:
        """What is stored."""
        return self.objects.get((plural, namespace, name))

    def break_watches(self) -> None:
        """End every watch, as an API server does that restarts."""
        self.epoch += 1
        self.news.set()

    def forget(self) -> None:
        """Lose the history: a watch from before now is answered 410."""
        self.oldest = self.version
        self.break_watches()

    def silently(self, plural: str, body: Json, namespace: str = "") -> None:
        """Change an object without telling any watch: a lost notification."""
        history = list(self.history)
        self.put(plural, body, namespace)
        self.history = history

    def _tell(self, type_: str, plural: str, body: Json) -> None:
        self.history.append((self.version, plural, {"type": type_, "object": copy.deepcopy(body)}))
        self.news.set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        path = request.url.path
        self.requests.append((request.method, path))
        if self.fail:
            return _status(self.fail.pop(0), "Failed", "as told")
        if path == "/version":
            return httpx2.Response(200, json={"major": "1", "minor": "34+"})
        match = _PATH.match(path)
        if match is None:
            return _status(404, "NotFound", path)
        namespace, plural, name = match["namespace"] or "", match["plural"], match["name"]
        if request.method == "GET" and name is None:
            return self._list_or_watch(request, plural, namespace)
        body = json.loads(await request.aread() or b"null")
        key = (plural, namespace, name or "")
        if request.method == "POST":
            if (plural, namespace, body["metadata"]["name"]) in self.objects:
                return _status(409, "AlreadyExists", "there is one")
            return httpx2.Response(201, json=self.put(plural, body, namespace))
        found = self.objects.get(key)
        if found is None:
            return _status(404, "NotFound", f"{plural} {name!r} not found")
        if request.method == "GET":
            return httpx2.Response(200, json=found)
        if request.method == "DELETE":
            self.remove(plural, name or "", namespace)
            return httpx2.Response(200, json={})
        if request.method == "PATCH":
            found = copy.deepcopy(found)
            if "json-patch" in request.headers["content-type"]:
                if not _patch(found, body):
                    return _status(422, "Invalid", "test failed")
            else:
                found.update(body)
            return httpx2.Response(200, json=self.put(plural, found, namespace))
        asked = body["metadata"].get("resourceVersion")
        if asked and asked != found["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        body["metadata"]["uid"] = found["metadata"]["uid"]
        return httpx2.Response(200, json=self.put(plural, body, namespace))

    def _list_or_watch(self, request: httpx2.Request, plural: str, namespace: str) -> httpx2.Response:
        parameters = request.url.params
        if parameters.get("watch") == "true":
            version = int(parameters["resourceVersion"])
            if version < self.oldest:
                if self.gone_in_stream:
                    event = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
                    return httpx2.Response(200, stream=_Once(json.dumps(event).encode() + b"\n"))
                return _status(410, "Expired", "too old resource version")
            return httpx2.Response(200, stream=_Stream(self, plural, version, float(parameters["timeoutSeconds"])))
        selector = parameters.get("fieldSelector", "")
        wanted = selector.removeprefix("metadata.name=") if selector else None
        items = [
            body
            for (kind, place, name), body in sorted(self.objects.items())
            if kind == plural and (not namespace or place == namespace) and (wanted is None or name == wanted)
        ]
        metadata = {"resourceVersion": str(self.version)}
        if self.page:
            start = int(parameters.get("continue", "0"))
            if start + self.page < len(items):
                metadata["continue"] = str(start + self.page)
            items = items[start : start + self.page]
        return httpx2.Response(200, json={"metadata": metadata, "items": items})


def _patch(document: Json, operations: list[Json]) -> bool:
    for operation in operations:
        *parents, last = operation["path"].strip("/").split("/")
        place: Any = document
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if operation["op"] == "test" and place[last] != operation["value"]:
            return False
        place[last] = operation["value"]
    return True


def _status(code: int, reason: str, message: str) -> httpx2.Response:
    return httpx2.Response(code, json={"kind": "Status", "code": code, "reason": reason, "message": message})


async def eventually(what: str, check: Any, seconds: float = 15.0) -> Any:
    """Wait until a check gives something true, and return it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = check()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come about in {seconds} s"
        await asyncio.sleep(0.005)
