"""The demo's client: an open loop of requests that counts every outcome and never retries. It measures; what it
measures is elsewhere.

Environment: TARGET (http://web.demo:8080/), RATE (requests/s over keep-alive connections, 20),
NEW_CONNECTIONS_PER_SECOND (2: each opens a connection for one request), TIMEOUT_SECONDS (10), DURATION_SECONDS (0:
until SIGTERM; else exit 0 only if nothing failed), PORT (8081). GET :8081/counts gives the counts as JSON.
"""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from components.demo.http import Client, HTTPError, Request, Response, Server, parse_target
from components.demo.runtime import SettingError, number, run, say, until_sigterm, with_health

LATE_SECONDS: Final = 0.05
"""A request sent this long after its time counts as late: the client itself was starved."""
MAX_KEEP_ALIVE: Final = 512
"""Most keep-alive connections: an open loop against a stuck server must not eat every port."""
MAX_CAUSES: Final = 64
"""Most distinct failure causes and answers counted by name; the rest count as `other`."""
REPORT_SECONDS: Final = 10.0


@dataclass(slots=True)
class Counts:
    """Everything this client has seen. `sent` = `ok` + failures + what is in flight."""

    sent: int = 0
    ok: int = 0
    late: int = 0
    new_connections: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.causes.total()

    def as_dict(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failed,
            "in_flight": self.sent - self.ok - self.failed,
            "late": self.late,
            "new_connections": self.new_connections,
            "causes": dict(self.causes),
            "answers": dict(self.answers),
        }


def tally(counter: Counter[str], name: str) -> None:
    """Count by name, within bounds."""
    counter[name if name in counter or len(counter) < MAX_CAUSES else "other"] += 1


async def attempt(send: Callable[[], Awaitable[Response]], counts: Counts) -> None:
    """One request, its outcome counted."""
    counts.sent += 1
    try:
        response = await send()
    except TimeoutError:
        tally(counts.causes, "timeout")
    except HTTPError as error:
        tally(counts.causes, error.cause)
    except OSError as error:
        tally(counts.causes, error.strerror or type(error).__name__)
    else:
        if response.status == 200:
            counts.ok += 1
            tally(counts.answers, response.body.decode("latin-1").strip()[:120])
        else:
            reason = response.headers.get("l5d-proxy-error") or response.body.decode("latin-1").strip()[:80]
            tally(counts.causes, f"status {response.status} {reason}".strip())


async def open_loop(rate: float, send: Callable[[], Awaitable[Response]], counts: Counts) -> None:
    """Start `rate` requests each second at their due times, whatever became of earlier ones; runs until cancelled."""
    if not rate:
        return
    clock = asyncio.get_running_loop().time
    running: set[asyncio.Task[None]] = set()
    due = clock()
    try:
        while True:
            wait = due - clock()
            if wait > 0:
                await asyncio.sleep(wait)
            elif -wait > LATE_SECONDS:
                counts.late += 1
            task = asyncio.create_task(attempt(send, counts))
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / rate
    finally:
        if running:
            await asyncio.wait(running)


async def report(counts: Counts) -> None:
    """A line of counts every few seconds; runs until cancelled."""
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        say(json.dumps(counts.as_dict()))


async def main() -> bool:
    """Send until SIGTERM or for DURATION_SECONDS; False when a bounded run had failures."""
    url = os.environ.get("TARGET") or "http://web.demo:8080/"
    try:
        target = parse_target(url)
    except ValueError as error:
        raise SettingError(f"TARGET: {error}") from None
    client = Client(target, MAX_KEEP_ALIVE, number("TIMEOUT_SECONDS", 10))
    counts = Counts()

    async def answer(request: Request) -> Response:
        if (request.method, request.path) == ("GET", "/counts"):
            counts.new_connections = client.opened
            return Response(200, json.dumps(counts.as_dict()).encode(), {"content-type": "application/json"})
        return Response(404, b"not found\n")

    server = Server(with_health(answer), int(number("PORT", 8081)))
    await server.start()
    say(f"sending to {url}, counts on port {server.port}")
    loops = [
        asyncio.create_task(open_loop(number("RATE", 20), client.get, counts)),
        asyncio.create_task(open_loop(number("NEW_CONNECTIONS_PER_SECOND", 2), client.get_once, counts)),
        asyncio.create_task(report(counts)),
    ]
    duration = number("DURATION_SECONDS", 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration or None):
            await until_sigterm()
    for task in loops:
        task.cancel()
    await asyncio.wait(loops)
    counts.new_connections = client.opened
    say(json.dumps(counts.as_dict()))
    await server.drain(1)
    return not (duration and counts.failed)


if __name__ == "__main__":
    run(main)
