"""What every control-plane process shares: logs, the admin port, signals. Does I/O; knows nothing of what the process
is for.

`/live`, `/ready` and `/metrics` are served by a few lines of asyncio, so that a component carries no web framework for
three paths.
"""

import asyncio
import contextlib
import logging
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from components.kube.client import KubeError

if TYPE_CHECKING:
    import grpc.aio

MAX_HEAD: Final = 8 * 1024
"""Bounds a request's head on the admin port."""
HEAD_SECONDS: Final = 5.0
"""A caller that sends no request within this time is let go, so that idle connections cannot pile up."""
MAX_CONNECTIONS: Final = 128
"""Bounds the callers of the admin port at one moment."""

EXIT_BAD_CONFIGURATION: Final = 64
"""`EX_USAGE` of sysexits.h, as the proxy's."""

Ready = Callable[[], str | None]
"""None when ready, else what is being waited for."""


class StartupError(Exception):
    """The process cannot start; the message is the one line that says why and what to do."""


def configure_logging(level: str, component: str) -> None:
    """One JSON object per line on stdout; levels below `level` cost nothing."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component)


def parse_address(text: str, flag: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` of a flag; raises StartupError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise StartupError(f"{flag} {text!r} is not an address; expected host:port, such as 0.0.0.0:9990")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_duration(text: str, flag: str) -> int:
    """Milliseconds of `<integer>(ms|s|m|h|d)`; raises StartupError."""
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if match is None:
        raise StartupError(
            f"{flag} {text!r} is not a duration; expected a whole number and ms, s, m, h or d, such as 24h"
        )
    return int(match[1]) * {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[match[2]]


def bind(server: "grpc.aio.Server", address: str, flag: str) -> int:
    """Bind a gRPC server in plaintext, its own proxy being the one that speaks TLS; raises StartupError."""
    parse_address(address, flag)
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartupError(f"{flag} {address}: {error}; choose another address") from error
    if port == 0:
        raise StartupError(f"{flag} {address} cannot be bound; choose another address")
    return port


class AdminServer:
    """`/live` (the loop turns), `/ready` (and what is missing), `/metrics`."""

    def __init__(self, address: str, ready: Ready, registry: CollectorRegistry = REGISTRY) -> None:
        self._host, self._port = parse_address(address, "--admin")
        self._ready = ready
        self._registry = registry
        self._open = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it is bound to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and serve; raises StartupError if the address cannot be had."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MAX_HEAD)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise StartupError(f"--admin {where}: {error.strerror}; choose another address") from error

    async def close(self) -> None:
        """Stop accepting."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                    async with asyncio.timeout(HEAD_SECONDS):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._answer(head))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        line = head.split(b"\r\n", 1)[0].split(b" ")
        if len(line) != 3 or not line[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"bad request\n")
        method, path = line[0], line[1].split(b"?", 1)[0]
        if path not in (b"/live", b"/ready", b"/metrics"):
            return _response("404 Not Found", b"not found\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"allowed: GET, HEAD\n", "Allow: GET, HEAD\r\n")
        status, body, kind = "200 OK", b"live\n", "text/plain; charset=utf-8"
        if path == b"/ready":
            missing = self._ready()
            status = "200 OK" if missing is None else "503 Service Unavailable"
            body = b"ready\n" if missing is None else f"not ready: {missing}\n".encode()
        elif path == b"/metrics":
            body, kind = generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
        return _response(status, body, f"Content-Type: {kind}\r\n", with_body=method == b"GET")


def _response(status: str, body: bytes, headers: str = "", *, with_body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if with_body else b"")


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run a process's main coroutine on uvloop; SIGTERM and SIGINT set the event it is given. Returns the exit code."""
    import uvloop

    # A second series for each counter, with the time of its birth, which nothing of ours reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]

    async def supervised() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    log = structlog.get_logger()
    try:
        uvloop.run(supervised())
    except (StartupError, KubeError) as error:
        log.error("cannot_start", error=str(error))
        return EXIT_BAD_CONFIGURATION
    return 0


async def until(stop: asyncio.Event, *tasks: Coroutine[Any, Any, None]) -> None:
    """Run tasks that never end until `stop` is set; a task that fails takes the process down, loudly."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task) for task in tasks]
        await stop.wait()
        for each in running:
            each.cancel()
