"""HTTP/1.1 for the demo: a keep-alive server and a keep-alive client over asyncio streams. Not a product codec; the
proxy has its own.

Messages are framed by Content-Length only: the demo's peers send nothing else, and what is not understood is refused.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

MAX_HEAD: Final = 16 * 1024
"""Longest request or status head; a peer that never ends its headers holds no more memory than this."""
MAX_BODY: Final = 1024 * 1024
"""Longest body either side reads whole."""
FRESH_GRACE: Final = 1.0
"""Seconds that a draining server waits for the first request of a connection it has accepted."""
RESOLVE_SECONDS: Final = 5.0
REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 502: "Bad Gateway"}


class HTTPError(Exception):
    """A message that this codec does not accept, or a peer that ended in the middle of one. `cause` is short and
    countable.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One response, whole."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    """The start line and headers of the next message; None when the peer closed between two messages."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise HTTPError("closed in head") from None
    except asyncio.LimitOverrunError:
        raise HTTPError("head too long") from None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HTTPError("header without colon")
        headers[name.lower()] = value.strip()
    return start, headers


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body that Content-Length announces; a transfer coding is refused rather than misread."""
    if "transfer-encoding" in headers:
        raise HTTPError("transfer-encoding not supported")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise HTTPError("bad content-length")
    try:
        return await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        raise HTTPError("closed in body") from None


class Server:
    """An HTTP/1.1 server that drains as Go's does: queued connections are taken, idle ones closed, running requests
    finished.
    """

    def __init__(self, handler: Handler, port: int, host: str = "0.0.0.0") -> None:
        self._handler = handler
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._draining = False
        self._fresh: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._busy: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._idle: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def port(self) -> int:
        """The port that is really bound (tests bind port 0)."""
        assert self._socket is not None, "the server has not been started"
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Bind and serve; a port in use raises OSError, which names it."""
        self._socket = socket.create_server(self._address, backlog=1024)
        self._socket.setblocking(False)
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=MAX_HEAD)

    async def drain(self, seconds: float) -> bool:
        """Stop accepting, end idle connections, wait for the others. False when a request was still running after
        `seconds`.
        """
        assert self._server is not None
        await self._settle()
        self._server.close()
        self._draining = True
        await self._settle()
        for writer in self._idle.values():
            writer.close()
        if self._fresh:
            await asyncio.wait(set(self._fresh), timeout=min(FRESH_GRACE, seconds))
            for writer in self._fresh.values():
                writer.close()
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=seconds)
        return not self._busy

    @staticmethod
    async def _settle() -> None:
        # What the kernel already holds (queued connections, received bytes) needs a few turns of the loop to reach us.
        for _ in range(10):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._fresh[task] = writer
        try:
            while await self._exchange(task, reader, writer):
                pass
        except HTTPError as error:
            write_response(writer, Response(400, error.cause.encode()), close=True)
        except (OSError, asyncio.CancelledError):
            # The peer is gone, or the program ends (3.11's stream server reports a cancelled handler as an error).
            pass
        finally:
            for state in (self._fresh, self._busy, self._idle):
                state.pop(task, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one request and answer it; False when the connection should end."""
        head = await read_head(reader)
        if head is None:
            return False
        self._fresh.pop(task, None)
        self._idle.pop(task, None)
        self._busy[task] = writer
        start, headers = head
        request = parse_request(start, headers, await read_body(reader, headers))
        response = await self._handler(request)
        close = self._draining or headers.get("connection", "").lower() == "close" or start.endswith("HTTP/1.0")
        write_response(writer, response, close)
        await writer.drain()
        del self._busy[task]
        self._idle[task] = writer
        return not close


def parse_request(start: str, headers: dict[str, str], body: bytes) -> Request:
    """A Request from its start line, headers and body."""
    parts = start.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise HTTPError("bad request line")
    target = urlsplit(parts[1])
    return Request(parts[0], target.path or "/", dict(parse_qsl(target.query)), headers, body)


def write_response(writer: asyncio.StreamWriter, response: Response, close: bool) -> None:
    """Serialise a response; Content-Length always, so that a keep-alive peer knows where it ends."""
    reason = REASONS.get(response.status, "Unknown")
    lines = [f"HTTP/1.1 {response.status} {reason}", f"content-length: {len(response.body)}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if close:
        lines.append("connection: close")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + response.body)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client sends its requests."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"


def parse_target(url: str) -> Target:
    """A Target from `http://host[:port]/path?query`; anything else raises ValueError, naming it."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, parts.port or 80, path)


@dataclass(slots=True)
class Connection:
    """One client connection: one exchange at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def reusable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing() and self.reader.exception() is None

    async def exchange(self, target: Target, close: bool = False, method: str = "GET") -> tuple[Response, bool]:
        """Send a request without a body and read its response; the flag: the connection may be used again."""
        lines = [f"{method} {target.path} HTTP/1.1", f"host: {target.authority}"]
        if close:
            lines.append("connection: close")
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = await read_head(self.reader)
        if head is None:
            raise HTTPError("closed before response")
        start, headers = head
        version, _, rest = start.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not status.isdigit():
            raise HTTPError("bad status line")
        body = await read_body(self.reader, headers)
        keep = not close and version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return Response(int(status), body, headers), keep

    def close(self) -> None:
        self.writer.close()


class Resolver:
    """Remembers addresses for a few seconds, as any caching resolver does: 100 connections a second are not 100 look-
    ups.
    """

    def __init__(self, seconds: float = RESOLVE_SECONDS) -> None:
        self._seconds = seconds
        self._known: dict[tuple[str, int], tuple[float, str]] = {}

    async def address(self, target: Target) -> str:
        """The target's first address; raises OSError when the name is not known."""
        loop = asyncio.get_running_loop()
        key = (target.host, target.port)
        expiry, address = self._known.get(key, (0.0, ""))
        if loop.time() >= expiry:
            found = await loop.getaddrinfo(*key, type=socket.SOCK_STREAM)
            address = str(found[0][4][0])
            self._known[key] = (loop.time() + self._seconds, address)
        return address


class Client:
    """Requests over at most `connections` keep-alive connections. It never retries: failures are the caller's."""

    def __init__(self, target: Target, connections: int, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._slots = asyncio.Semaphore(connections)
        self._idle: deque[Connection] = deque()
        self._resolver = Resolver()
        self.opened = 0

    async def get(self) -> Response:
        """One GET; raises HTTPError, OSError or TimeoutError."""
        async with self._slots, asyncio.timeout(self._seconds):
            connection = await self._take()
            keep = False
            try:
                response, keep = await connection.exchange(self._target)
            finally:
                if keep:
                    self._idle.append(connection)
                else:
                    connection.close()
            return response

    async def get_once(self) -> Response:
        """One GET on a connection of its own."""
        async with asyncio.timeout(self._seconds):
            connection = await self._open()
            try:
                return (await connection.exchange(self._target, close=True))[0]
            finally:
                connection.close()

    async def _take(self) -> Connection:
        # The most recently used first: it is the least likely to have been closed by the peer for idleness.
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return await self._open()

    async def _open(self) -> Connection:
        self.opened += 1
        address = await self._resolver.address(self._target)
        return Connection(*await asyncio.open_connection(address, self._target.port, limit=MAX_HEAD))
