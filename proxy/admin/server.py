"""The admin port as functions of a request: routes, who may call them, what they answer. The sockets and HTTP are not
here.

`/live` and `/ready` are for the kubelet, so for all. `/metrics` is for Prometheus, known by its mesh identity, and
for loopback. The rest is for whoever is inside the pod: loopback alone.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from json import dumps
from typing import Final, NamedTuple

from proxy.telemetry.exposition import CONTENT_TYPE, END, OPENMETRICS, Sample, render
from proxy.telemetry.log import LEVELS, Log

TEXT: Final = "text/plain; charset=utf-8"
MAX_LEVEL: Final = 16
"""Bytes of a log level in a request: the longest has five."""


class Peer(NamedTuple):
    """Who is calling: the address, and the identity that mTLS has proved (empty where there is none)."""

    ip: str
    identity: str = ""

    @property
    def is_loopback(self) -> bool:
        """`::ffff:127.0.0.1` is loopback too: it is what a dual-stack socket shows."""
        try:
            address = ip_address(self.ip)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_loopback


class Request(NamedTuple):
    """What routes look at. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer
    body: bytes = b""


class Response(NamedTuple):
    """`body` is all of it, or chunks between which the loop has run."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes]


class Refusal(Exception):
    """A request that gets an error: the status, the sentence, and any header that goes with it."""

    def __init__(self, status: int, sentence: str, *headers: tuple[str, str]) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


Families = Iterable[tuple[str, str, str, Iterable[Sample]]]


class Admin:
    """The routes, bound to what they show and change."""

    def __init__(
        self,
        *,
        log: Log,
        is_ready: Callable[[], bool],
        families: Callable[[], Families],
        refresh: Callable[[], Awaitable[None]] | None = None,
        shutdown: Callable[[], None],
        environ: Mapping[str, str],
        metrics_identities: tuple[str, ...] = (),
        metrics_plaintext: bool = False,
        shutdown_enabled: bool = False,
    ) -> None:
        self._log = log
        self._is_ready = is_ready
        self._families = families
        self._refresh = refresh
        self._shutdown = shutdown
        self._environ = environ
        self._metrics_identities = metrics_identities
        self._metrics_plaintext = metrics_plaintext
        self._shutdown_enabled = shutdown_enabled
        self._routes: dict[str, Callable[[Request], Response]] = {
            "/live": self._live,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/shutdown": self._shut_down,
            "/env.json": self._environment,
            "/proxy-log-level": self._log_level,
        }

    def handle(self, request: Request) -> Response:
        """The answer to a request; every refusal is an answer too."""
        path = request.target.partition("?")[0]
        try:
            route = self._routes.get(path)
            if route is None:
                raise Refusal(404, "not found")
            response = route(request)
        except Refusal as refusal:
            response = _text(refusal.status, f"{refusal}\n", *refusal.headers)
        return response._replace(body=b"") if request.method == "HEAD" else response

    def _live(self, request: Request) -> Response:
        _allow(request, "GET", "HEAD")
        return _text(200, "live\n")

    def _ready(self, request: Request) -> Response:
        _allow(request, "GET", "HEAD")
        return _text(200, "ready\n") if self._is_ready() else _text(503, "not ready\n")

    def _metrics(self, request: Request) -> Response:
        self._may_read_metrics(request.peer)
        _allow(request, "GET", "HEAD")
        openmetrics = _accepts_openmetrics_alone(request.headers.get("accept", ""))
        headers = [("content-type", OPENMETRICS if openmetrics else CONTENT_TYPE), ("vary", "accept, accept-encoding")]
        if request.method == "HEAD":
            return Response(200, headers, b"")
        chunks = self._exposition(openmetrics)
        if _accepts_gzip(request.headers.get("accept-encoding", "")):
            headers.append(("content-encoding", "gzip"))
            chunks = _gzipped(chunks)
        return Response(200, headers, _yielding(chunks, self._refresh))

    def _exposition(self, openmetrics: bool) -> Iterator[bytes]:
        """Begun by whoever takes the first piece, so that counters that others bring are there."""
        yield from render(self._families(), openmetrics=openmetrics)
        yield END

    def _may_read_metrics(self, peer: Peer) -> None:
        """Raises Refusal, with what the caller lacks."""
        if self._metrics_plaintext or peer.is_loopback:
            return
        if not peer.identity:
            raise Refusal(403, "metrics are for the mesh's Prometheus: call over mTLS, or from inside the pod")
        if peer.identity not in self._metrics_identities:
            raise Refusal(403, f"{peer.identity} is not among those that may read metrics")

    def _shut_down(self, request: Request) -> Response:
        _only_loopback(request.peer)
        if not self._shutdown_enabled:
            raise Refusal(404, "shutdown endpoint is not enabled")
        _allow(request, "POST")
        self._log.info("shutdown asked for", peer=request.peer.ip)
        self._shutdown()
        return _text(200, "shutdown\n")

    def _environment(self, request: Request) -> Response:
        """All variables, or those that the query names (`?A&B`); one that is not set shows as null."""
        _only_loopback(request.peer)
        _allow(request, "GET", "HEAD")
        query = request.target.partition("?")[2]
        asked = [name for name in query.split("&") if name]
        shown = {name: self._environ.get(name) for name in asked} if asked else dict(self._environ)
        return Response(200, [("content-type", "application/json")], dumps(shown, indent=1).encode() + b"\n")

    def _log_level(self, request: Request) -> Response:
        _only_loopback(request.peer)
        _allow(request, "GET", "HEAD", "PUT")
        if request.method != "PUT":
            return _text(200, f"{self._log.level}\n")
        level = request.body[:MAX_LEVEL].decode("utf-8", "replace").strip()
        if level not in LEVELS or len(request.body) > MAX_LEVEL:
            raise Refusal(400, f"not a log level: write one of {', '.join(LEVELS)}")
        self._log.level = level
        self._log.info("log level changed", level=level)
        return Response(204, [], b"")


def _allow(request: Request, *methods: str) -> None:
    """Raises Refusal for another method, naming those that there are (RFC 9110 section 15.5.6)."""
    if request.method not in methods:
        raise Refusal(405, f"{request.method} is not allowed here", ("allow", ", ".join(methods)))


def _only_loopback(peer: Peer) -> None:
    """Raises Refusal for any caller outside the pod."""
    if not peer.is_loopback:
        raise Refusal(403, "this path answers callers on localhost only")


def _text(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return Response(status, [("content-type", TEXT), *headers], text.encode())


def _accepts_openmetrics_alone(accept: str) -> bool:
    """Whether OpenMetrics is all that the client reads. Prometheus takes both and gets the text format: OpenMetrics
    spells bounds otherwise (le="1.0") than Linkerd's older families do, so it would make other series of them.
    """
    types = {item.partition(";")[0].strip() for item in accept.lower().split(",")}
    return "application/openmetrics-text" in types and not types & {"text/plain", "text/*", "*/*"}


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named and not refused with q=0 (RFC 9110 section 12.5.3)."""
    for item in accept_encoding.lower().split(","):
        coding, _, parameter = item.partition(";")
        if coding.strip() == "gzip":
            weight = parameter.strip().removeprefix("q=")
            return weight.strip("0.") != "" if parameter else True
    return False


def _gzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk)  # often nothing yet, but also a moment for others
    yield packer.flush()


async def _yielding(chunks: Iterator[bytes], refresh: Callable[[], Awaitable[None]] | None) -> AsyncIterator[bytes]:
    """Let the loop run between two chunks: a scrape of many series must not hold up requests."""
    if refresh is not None:
        await refresh()
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)
