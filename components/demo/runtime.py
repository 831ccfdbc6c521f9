"""What the demo programs share around their work: environment, SIGTERM, `/healthz`. Nothing about HTTP itself (that is
`http.py`).
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from components.demo.http import Request, Response, Server

DRAIN_SECONDS: Final = 20.0
"""Longest that requests in flight hold up an exit; below Kubernetes' default grace period of 30 s."""


class SettingError(ValueError):
    """An environment variable that cannot be used; the message names it, its value and what would do."""


def number(name: str, default: float) -> float:
    """A non-negative number from the environment."""
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise SettingError(f"{name}={text!r} is not a number") from None
    if not 0 <= value < 1e9:
        raise SettingError(f"{name}={text!r} is not a number from 0 up")
    return value


def hostname() -> str:
    """The pod's name, as Kubernetes sets it; the machine's outside a pod."""
    return os.environ.get("POD_NAME") or os.uname().nodename


def with_health(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer GET /healthz, pass everything else to `handler`."""

    async def answer(request: Request) -> Response:
        if request.path == "/healthz":
            return Response(200, b"ok\n")
        return await handler(request)

    return answer


async def until_sigterm() -> None:
    """Return when the process is asked to end."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number_, done.set)
    await done.wait()


async def serve_until_sigterm(handler: Callable[[Request], Awaitable[Response]], port: int) -> bool:
    """Serve with `/healthz` until SIGTERM, then drain; False when requests had to be cut off."""
    server = Server(with_health(handler), port)
    await server.start()
    say(f"listening on port {server.port}")
    await until_sigterm()
    finished = await server.drain(DRAIN_SECONDS)
    say("drained" if finished else f"requests still running after {DRAIN_SECONDS:.0f} s were cut off")
    return finished


def say(line: str) -> None:
    """One line on standard output, at once."""
    print(line, flush=True)


def run(main: Callable[[], Awaitable[bool]]) -> None:
    """Run a program's `main`; exit 64 with one line for a bad setting, 1 for a port in use."""

    async def wrapped() -> bool:
        return await main()

    try:
        finished = asyncio.run(wrapped())
    except (SettingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(64 if isinstance(error, SettingError) else 1)
    sys.exit(0 if finished else 1)
