"""The demo's raw-TCP server: sends back what it receives, with a banner first where asked (a server-speaks-first
protocol).

Environment: PORT (9000), BANNER (empty: none), HEALTH_PORT (8081). Protocols other than "echo" do not belong here.
"""

import asyncio
import contextlib
import json
import os

from components.demo.http import Request, Response, Server
from components.demo.runtime import number, run, say, until_sigterm, with_health

CHUNK = 64 * 1024


class Echo:
    """Echoes each connection and counts bytes."""

    def __init__(self, banner: bytes) -> None:
        self._banner = banner
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.received = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            writer.write(self._banner)
            while data := await reader.read(CHUNK):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        except asyncio.CancelledError:
            # An echo stream has no end of its own: at SIGTERM it is ended here, with a FIN after what was echoed.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def end(self) -> None:
        """End every stream."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    async def answer(self, request: Request) -> Response:
        if (request.method, request.path) == ("GET", "/counts"):
            counts = {"accepted": self.accepted, "open": len(self._tasks), "received": self.received}
            return Response(200, json.dumps(counts).encode(), {"content-type": "application/json"})
        return Response(404, b"not found\n")


async def main() -> bool:
    """Serve until SIGTERM."""
    banner = os.environ.get("BANNER", "").encode()
    echo = Echo(banner + b"\r\n" if banner else b"")
    health = Server(with_health(echo.answer), int(number("HEALTH_PORT", 8081)))
    await health.start()
    server = await asyncio.start_server(echo.serve, "0.0.0.0", int(number("PORT", 9000)))
    say(f"echoing on port {server.sockets[0].getsockname()[1]}, health on port {health.port}")
    await until_sigterm()
    server.close()
    await echo.end()
    await health.drain(1)
    return True


if __name__ == "__main__":
    run(main)
