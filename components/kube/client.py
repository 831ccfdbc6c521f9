"""A small asynchronous Kubernetes client: does I/O. Credentials and TLS by lightkube, bodies by msgspec.

Callers say what type an object is decoded into, so that a field nobody reads is never built: a Pod costs a few hundred
bytes. Names of resources belong here, what is done with them does not.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

import httpx2
import msgspec
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

T = TypeVar("T")
Json = dict[str, Any]

PAGE: Final = 500
"""Objects per page of a list, as client-go: bounds what one answer costs the API server and us."""
REQUEST_SECONDS: Final = 10.0
MAX_LINE: Final = 8 * 1024 * 1024
"""Bounds one watch event; etcd holds at most 1.5 MB per object, and JSON may be longer than what is stored."""
DEAD_PEER: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A watch is silent for minutes: without these a vanished API server would leave it hanging for as long."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as the API's paths name it."""

    api: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of a collection, an object or a part of it."""
        parts = ["/api" if "/" not in self.api else "/apis", self.api]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


PODS: Final = Kind("v1", "pods")
SERVICES: Final = Kind("v1", "services")
NAMESPACES: Final = Kind("v1", "namespaces")
SECRETS: Final = Kind("v1", "secrets")
CONFIG_MAPS: Final = Kind("v1", "configmaps")
EVENTS: Final = Kind("v1", "events")
ENDPOINT_SLICES: Final = Kind("discovery.k8s.io/v1", "endpointslices")
REPLICA_SETS: Final = Kind("apps/v1", "replicasets")
EXTERNAL_WORKLOADS: Final = Kind("workload.linkerd.io/v1beta1", "externalworkloads")
LEASES: Final = Kind("coordination.k8s.io/v1", "leases")
TOKEN_REVIEWS: Final = Kind("authentication.k8s.io/v1", "tokenreviews")
MUTATING_WEBHOOKS: Final = Kind("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")


class KubeError(Exception):
    """The API server did not do what was asked: `code` and `reason` are its own, 0 and `Unreachable` where it did not
    answer.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({reason}, {code})" if code else f"{message} ({reason})")
        self.code = code
        self.reason = reason

    @property
    def gone(self) -> bool:
        """The resource version asked for is no longer kept: list again."""
        return self.code == 410

    @property
    def conflict(self) -> bool:
        """Somebody else changed or made the object first."""
        return self.code == 409

    @property
    def not_found(self) -> bool:
        """There is no such object."""
        return self.code == 404


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """What of a list counts."""

    resource_version: str = ""
    next: str = msgspec.field(default="", name="continue")


class RawList(msgspec.Struct, frozen=True):
    """A page of a list, its items not yet decoded."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""


class _VersionMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Versioned(msgspec.Struct, frozen=True):
    metadata: _VersionMeta


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """A decoded watch event; `value` is None for a bookmark, which only moves the version on."""

    type: str
    version: str
    value: T | None


class Kube:
    """A connection to one API server."""

    def __init__(self, client: httpx2.AsyncClient, server: str) -> None:
        self._client = client
        self.server = server

    @classmethod
    def connect(cls) -> "Kube":
        """In a pod by its service account, elsewhere by KUBECONFIG or ~/.kube/config."""
        try:
            config = KubeConfig.from_env().get()
        except ConfigError as error:
            raise KubeError(0, "NoConfig", f"no cluster: {error}; set KUBECONFIG, or run in a pod") from error
        if config is None or config.user is None:
            raise KubeError(
                0, "NoConfig", "no cluster: neither a service account nor a kubeconfig with a user was found"
            )
        verify = verify_cluster(config.cluster, config.user, config.abs_file)
        transport = httpx2.AsyncHTTPTransport(verify=verify, socket_options=DEAD_PEER)
        client = httpx2.AsyncClient(
            base_url=config.cluster.server,
            transport=transport,
            auth=user_auth(config.user),
            # Watches are read line by line as they come; a compressed stream would hold lines back.
            headers={"Accept-Encoding": "identity", "User-Agent": "tulle"},
            timeout=httpx2.Timeout(REQUEST_SECONDS),
            trust_env=False,
        )
        return cls(client, config.cluster.server)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        repeatable: bool = False,
    ) -> bytes:
        """One exchange; raises KubeError for anything but success.

        What may be asked twice (a GET, or what the caller says is `repeatable`) is asked once more when the connection
        breaks: an API server that ends an idle connection just then is no outage.
        """
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        attempts = 2 if repeatable or method == "GET" else 1
        while True:
            attempts -= 1
            try:
                answer = await self._client.request(method, path, content=content, params=params, headers=headers)
                break
            except httpx2.HTTPError as error:
                if attempts == 0 or isinstance(error, httpx2.TimeoutException):
                    raise _unreachable(method, path, error) from error
        if not answer.is_success:
            raise _refused(method, path, answer.status_code, answer.content)
        return answer.content

    async def get(self, kind: Kind, type_: type[T], name: str, namespace: str | None = None) -> T:
        """One object."""
        return msgspec.json.decode(await self.request("GET", kind.path(namespace, name)), type=type_)

    async def find(self, kind: Kind, type_: type[T], name: str, namespace: str | None = None) -> T | None:
        """One object, or None where there is none."""
        try:
            return await self.get(kind, type_, name, namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            return None

    async def create(self, kind: Kind, body: object, namespace: str | None = None) -> Json:
        """A new object; a conflict if there is one of this name."""
        answer = await self.request("POST", kind.path(namespace), body=body)
        return msgspec.json.decode(answer, type=Json)

    async def replace(self, kind: Kind, body: object, name: str, namespace: str | None = None) -> Json:
        """The whole object anew; a conflict if its resourceVersion is not the current one."""
        answer = await self.request("PUT", kind.path(namespace, name), body=body)
        return msgspec.json.decode(answer, type=Json)

    async def merge(self, kind: Kind, body: object, name: str, namespace: str | None = None) -> Json:
        """A JSON merge patch."""
        answer = await self.request(
            "PATCH", kind.path(namespace, name), body=body, content_type="application/merge-patch+json"
        )
        return msgspec.json.decode(answer, type=Json)

    async def json_patch(
        self, kind: Kind, operations: list[Json], name: str, namespace: str | None = None, *, manager: str
    ) -> Json:
        """A JSON patch (RFC 6902), its fields owned by `manager`."""
        answer = await self.request(
            "PATCH",
            kind.path(namespace, name),
            body=operations,
            params={"fieldManager": manager},
            content_type="application/json-patch+json",
        )
        return msgspec.json.decode(answer, type=Json)

    async def delete(self, kind: Kind, name: str, namespace: str | None = None) -> None:
        """Remove an object; one that is not there is as good."""
        try:
            await self.request("DELETE", kind.path(namespace, name))
        except KubeError as error:
            if not error.not_found:
                raise

    async def version(self) -> tuple[int, int]:
        """The API server's major and minor version."""
        answer: Json = msgspec.json.decode(await self.request("GET", "/version"), type=Json)
        return int(answer["major"]), int("".join(filter(str.isdigit, answer["minor"])))

    async def list(
        self, kind: Kind, type_: type[T], namespace: str | None = None, selectors: Mapping[str, str] | None = None
    ) -> tuple[str, list[T]]:
        """All objects of a kind, and the version to watch from."""
        decoder = msgspec.json.Decoder(type_)
        pages = msgspec.json.Decoder(RawList)
        found: list[T] = []
        params = {"limit": str(PAGE), **(selectors or {})}
        while True:
            path = kind.path(namespace)
            answer = await self.request("GET", path, params=params)
            try:
                page = pages.decode(answer)
                found += [decoder.decode(item) for item in page.items or ()]
            except msgspec.MsgspecError as error:
                raise _unreadable("LIST", path, error) from error
            if not page.metadata.next:
                return page.metadata.resource_version, found
            params["continue"] = page.metadata.next

    async def watch(
        self,
        kind: Kind,
        type_: type[T],
        version: str,
        seconds: int,
        namespace: str | None = None,
        selectors: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Change[T]]:
        """Changes after `version`, for at most `seconds`; raises KubeError (`gone` when the version is too old)."""
        decoder = msgspec.json.Decoder(type_)
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **(selectors or {}),
        }
        path = kind.path(namespace)
        timeout = httpx2.Timeout(REQUEST_SECONDS, read=seconds + REQUEST_SECONDS)
        try:
            async with self._client.stream("GET", path, params=params, timeout=timeout) as answer:
                if not answer.is_success:
                    raise _refused("WATCH", path, answer.status_code, await answer.aread())
                async for line in _lines(answer.aiter_raw()):
                    yield _decode_event(line, decoder)
        except httpx2.HTTPError as error:
            raise _unreachable("WATCH", path, error) from error
        except msgspec.MsgspecError as error:
            raise _unreadable("WATCH", path, error) from error


_EVENTS: Final = msgspec.json.Decoder(WatchEvent)
_VERSIONS: Final = msgspec.json.Decoder(_Versioned)


def _decode_event(line: bytes, decoder: "msgspec.json.Decoder[T]") -> Change[T]:
    event = _EVENTS.decode(line)
    if event.type == "ERROR":
        status = msgspec.json.decode(event.object, type=_Status)
        raise KubeError(status.code, status.reason, status.message)
    version = _VERSIONS.decode(event.object).metadata.resource_version
    return Change(event.type, version, None if event.type == "BOOKMARK" else decoder.decode(event.object))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    kept: list[bytes] = []
    size = 0
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            kept.append(chunk[start:end])
            line = b"".join(kept)
            kept, size, start = [], 0, end + 1
            if line:
                yield line
        if start < len(chunk):
            kept.append(chunk[start:])
            size += len(chunk) - start
            if size > MAX_LINE:
                raise KubeError(0, "TooLong", f"a watch event is longer than {MAX_LINE} bytes")


def _refused(method: str, path: str, code: int, content: bytes) -> KubeError:
    try:
        status = msgspec.json.decode(content, type=_Status)
    except msgspec.MsgspecError:
        status = _Status(message=content[:200].decode(errors="replace"))
    return KubeError(code, status.reason or "Unknown", f"{method} {path}: {status.message}")


def _unreachable(method: str, path: str, error: Exception) -> KubeError:
    return KubeError(0, "Unreachable", f"{method} {path}: {type(error).__name__} {error}".rstrip())


def _unreadable(method: str, path: str, error: Exception) -> KubeError:
    return KubeError(0, "Unreadable", f"{method} {path}: an object is not of the shape we know: {error}")
