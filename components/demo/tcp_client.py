"""The demo's raw-TCP client: a steady stream of bytes to an echo server; counts what was sent, what came back, and
every break.

Environment: TARGET (tcp-server.demo:9000), BYTES_PER_SECOND (65536), BANNER (what the server says first, empty:
nothing), HEALTH_PORT (8081). GET :8081/counts gives the counts as JSON.
"""

import asyncio
import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Final

from components.demo.http import Request, Response, Server
from components.demo.runtime import SettingError, number, run, say, until_sigterm, with_health

TICKS_PER_SECOND: Final = 8
PATTERN: Final = bytes(range(256)) * 256
"""What is sent, over and over: each byte of the echo is checked against it."""
RECONNECT_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 10.0


@dataclass(slots=True)
class Counts:
    """Everything this client has seen."""

    connections: int = 0
    sent: int = 0
    received: int = 0
    corrupted: int = 0
    broken: int = 0
    last_error: str = ""


async def write_steadily(writer: asyncio.StreamWriter, rate: float, counts: Counts) -> None:
    """Send `rate` bytes each second until the connection breaks."""
    offset = 0
    chunk = max(1, min(int(rate / TICKS_PER_SECOND), len(PATTERN)))
    while True:
        rest = PATTERN[offset : offset + chunk]
        writer.write(rest)
        await writer.drain()
        counts.sent += len(rest)
        offset = (offset + len(rest)) % len(PATTERN)
        await asyncio.sleep(len(rest) / rate)


async def read_and_check(reader: asyncio.StreamReader, counts: Counts) -> None:
    """Compare the echo with the pattern; raises ConnectionError when the server ends the stream."""
    offset = 0
    while data := await reader.read(len(PATTERN)):
        counts.received += len(data)
        expected = (PATTERN + PATTERN)[offset : offset + len(data)]
        if data != expected:
            counts.corrupted += 1
        offset = (offset + len(data)) % len(PATTERN)
    raise ConnectionError("the server ended the stream")


async def stream(host: str, port: int, rate: float, banner: bytes, counts: Counts) -> None:
    """One connection's life; raises OSError when it ends, for it should not."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        counts.connections += 1
        if banner and await reader.readexactly(len(banner)) != banner:
            raise ConnectionError("another banner than expected")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write_steadily(writer, rate, counts))
            tasks.create_task(read_and_check(reader, counts))
    finally:
        writer.close()


async def stream_forever(host: str, port: int, rate: float, banner: bytes, counts: Counts) -> None:
    """Connect, stream, and after a break say so and begin again; runs until cancelled."""
    while True:
        try:
            await stream(host, port, rate, banner, counts)
        except* (OSError, asyncio.IncompleteReadError) as group:
            counts.broken += 1
            counts.last_error = str(group.exceptions[0])
            say(f"stream to {host}:{port} broke: {counts.last_error}")
        await asyncio.sleep(RECONNECT_SECONDS)


async def report(counts: Counts) -> None:
    """A line of counts every few seconds; runs until cancelled."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        say(json.dumps(asdict(counts)))


async def main() -> bool:
    """Stream until SIGTERM."""
    text = os.environ.get("TARGET") or "tcp-server.demo:9000"
    host, colon, port = text.rpartition(":")
    rate = number("BYTES_PER_SECOND", 65536)
    if not (colon and host and port.isdigit()):
        raise SettingError(f"TARGET={text!r} is not host:port")
    if not rate:
        raise SettingError("BYTES_PER_SECOND=0 sends nothing; give 1 or more")
    banner = os.environ.get("BANNER", "").encode()
    counts = Counts()

    async def answer(request: Request) -> Response:
        if (request.method, request.path) == ("GET", "/counts"):
            return Response(200, json.dumps(asdict(counts)).encode(), {"content-type": "application/json"})
        return Response(404, b"not found\n")

    health = Server(with_health(answer), int(number("HEALTH_PORT", 8081)))
    await health.start()
    say(f"streaming {rate:g} bytes/s to {text}, counts on port {health.port}")
    tasks = [
        asyncio.create_task(stream_forever(host, int(port), rate, banner + b"\r\n" if banner else b"", counts)),
        asyncio.create_task(report(counts)),
    ]
    await until_sigterm()
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    await health.drain(1)
    return True


if __name__ == "__main__":
    run(main)
