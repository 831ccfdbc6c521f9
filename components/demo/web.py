"""The demo's front end: GET / calls UPSTREAM over a few keep-alive connections and answers with both pods' names.

Environment: PORT (8080), UPSTREAM (http://api.demo:8080/), CONNECTIONS (16), TIMEOUT_SECONDS (10). A failed call is
answered with a 502 that names its cause; nothing is tried twice.
"""

import os

from components.demo.http import Client, HTTPError, Request, Response, parse_target
from components.demo.runtime import SettingError, hostname, number, run, serve_until_sigterm


class Web:
    """The handler over one upstream client."""

    def __init__(self, name: str, upstream: Client) -> None:
        self._name = name
        self._upstream = upstream

    async def handle(self, request: Request) -> Response:
        if (request.method, request.path) != ("GET", "/"):
            return Response(404, b"not found\n")
        try:
            answer = await self._upstream.get()
        except TimeoutError:
            return Response(502, b"upstream: timeout\n")
        except HTTPError as error:
            return Response(502, f"upstream: {error.cause}\n".encode())
        except OSError as error:
            return Response(502, f"upstream: {error}\n".encode())
        if answer.status != 200:
            reason = answer.headers.get("l5d-proxy-error", "")
            return Response(502, f"upstream: status {answer.status} {reason}\n".encode())
        return Response(200, f"{self._name} {answer.body.decode('latin-1').strip()}\n".encode())


async def main() -> bool:
    """Serve until SIGTERM."""
    url = os.environ.get("UPSTREAM") or "http://api.demo:8080/"
    try:
        target = parse_target(url)
    except ValueError as error:
        raise SettingError(f"UPSTREAM: {error}") from None
    upstream = Client(target, int(number("CONNECTIONS", 16)), number("TIMEOUT_SECONDS", 10))
    return await serve_until_sigterm(Web(hostname(), upstream).handle, int(number("PORT", 8080)))


if __name__ == "__main__":
    run(main)
