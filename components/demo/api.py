"""The demo's back end: GET / answers with this pod's name, after a delay that a test may set. Nothing here calls
anyone.

Environment: PORT (8080), DELAY_MS (0). POST /delay?ms=200 changes the delay of this pod while it runs.
"""

import asyncio

from components.demo.http import Request, Response
from components.demo.runtime import SettingError, hostname, number, run, serve_until_sigterm


class API:
    """The handler and the one thing it remembers: how slow to be."""

    def __init__(self, name: str, delay_ms: float) -> None:
        self._name = name
        self._delay_ms = delay_ms

    async def handle(self, request: Request) -> Response:
        match (request.method, request.path):
            case ("GET", "/"):
                if self._delay_ms:
                    await asyncio.sleep(self._delay_ms / 1000)
                return Response(200, f"{self._name}\n".encode())
            case ("POST", "/delay"):
                return self._set_delay(request.query.get("ms", ""))
            case ("GET", "/delay"):
                return Response(200, f"{self._delay_ms:g}\n".encode())
            case _:
                return Response(404, b"not found\n")

    def _set_delay(self, text: str) -> Response:
        try:
            delay = float(text)
        except ValueError:
            delay = -1.0
        if not 0 <= delay <= 60_000:
            return Response(400, f"ms={text!r} is not a number of milliseconds from 0 to 60000\n".encode())
        self._delay_ms = delay
        return Response(200, f"{delay:g}\n".encode())


async def main() -> bool:
    """Serve until SIGTERM."""
    delay = number("DELAY_MS", 0)
    if delay > 60_000:
        raise SettingError(f"DELAY_MS={delay:g} is more than 60000")
    return await serve_until_sigterm(API(hostname(), delay).handle, int(number("PORT", 8080)))


if __name__ == "__main__":
    run(main)
