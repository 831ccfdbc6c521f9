"""The demo's programs: what each answers, counts and does at SIGTERM."""

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from components.demo import runtime, tcp_client, tcp_server, traffic
from components.demo.api import API
from components.demo.http import Client, HTTPError, Request, Response, Server, Target
from components.demo.web import Web


def get(path: str, method: str = "GET", **query: str) -> Request:
    return Request(method, path, query, {})


async def test_api_answers_its_name_and_takes_a_delay() -> None:
    api = API("api-1", 0)
    assert (await api.handle(get("/"))).body == b"api-1\n"
    assert (await api.handle(get("/delay", "POST", ms="30"))).status == 200
    clock = asyncio.get_running_loop().time
    begun = clock()
    await api.handle(get("/"))
    assert clock() - begun >= 0.03
    assert (await api.handle(get("/delay"))).body == b"30\n"


@pytest.mark.parametrize("ms", ["", "soon", "-1", "60001", "nan"])
async def test_api_refuses_a_bad_delay(ms: str) -> None:
    response = await API("api-1", 0).handle(get("/delay", "POST", ms=ms))
    assert response.status == 400
    assert repr(ms).encode() in response.body


async def test_web_joins_both_names_and_names_the_cause_of_a_failure() -> None:
    status = 200

    async def upstream(_: Request) -> Response:
        return Response(status, b"api-1\n", {"l5d-proxy-error": "no endpoints"} if status != 200 else {})

    server = Server(upstream, 0, "127.0.0.1")
    await server.start()
    web = Web("web-1", Client(Target("127.0.0.1", server.port, "/"), 1, 5))
    assert (await web.handle(get("/"))).body == b"web-1 api-1\n"
    status = 503
    failed = await web.handle(get("/"))
    assert (failed.status, failed.body) == (502, b"upstream: status 503 no endpoints\n")
    await server.drain(1)
    assert (await web.handle(get("/"))).status == 502


async def test_traffic_counts_each_outcome_by_cause() -> None:
    counts = traffic.Counts()
    outcomes: list[Response | Exception] = [
        Response(200, b"web-1 api-1"),
        Response(503, b"", {"l5d-proxy-error": "failfast"}),
        HTTPError("closed before response"),
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(),
    ]

    async def send() -> Response:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for _ in range(5):
        await traffic.attempt(send, counts)
    assert counts.as_dict() == {
        "sent": 5,
        "ok": 1,
        "failed": 4,
        "in_flight": 0,
        "late": 0,
        "new_connections": 0,
        "causes": {
            "status 503 failfast": 1,
            "closed before response": 1,
            "Connection refused": 1,
            "timeout": 1,
        },
        "answers": {"web-1 api-1": 1},
    }


async def test_open_loop_does_not_wait_for_answers() -> None:
    counts = traffic.Counts()
    release = asyncio.Event()

    async def stuck() -> Response:
        await release.wait()
        return Response(200)

    loop = asyncio.create_task(traffic.open_loop(200, stuck, counts))
    async with asyncio.timeout(5):
        while counts.sent < 20:
            await asyncio.sleep(0.01)
    assert counts.ok == 0
    loop.cancel()
    release.set()
    await asyncio.wait([loop])
    assert counts.ok == counts.sent


def test_tally_is_bounded() -> None:
    counts = traffic.Counts()
    for number in range(1000):
        traffic.tally(counts.causes, str(number))
    assert len(counts.causes) <= traffic.MAX_CAUSES + 1
    assert counts.failed == 1000


async def test_tcp_pair_streams_and_checks_every_byte() -> None:
    echo = tcp_server.Echo(b"hello\r\n")
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    counts = tcp_client.Counts()
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(tcp_client.stream_forever("127.0.0.1", port, 2_000_000, b"hello\r\n", counts))
    async with asyncio.timeout(10):
        while counts.received < 300_000:
            await asyncio.sleep(0.01)
    assert (counts.connections, counts.corrupted, counts.broken) == (1, 0, 0)
    server.close()
    await echo.end()
    async with asyncio.timeout(5):
        while not counts.broken:
            await asyncio.sleep(0.01)
    assert counts.last_error == "the server ended the stream"
    task.cancel()


@asynccontextmanager
async def program(module: str, env: Mapping[str, str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A demo program as a process of its own; yields it with the HTTP port that it says it listens on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"components.demo.{module}", stdout=asyncio.subprocess.PIPE, env={**os.environ, **env}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        yield process, int(line.rsplit("port ", 1)[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def fetch(port: int, path: str) -> bytes:
    def read() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bytes(response.read())

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("module", "env"),
    [
        ("api", {"PORT": "0"}),
        ("web", {"PORT": "0", "UPSTREAM": "http://127.0.0.1:9/"}),
        ("traffic", {"PORT": "0", "TARGET": "http://127.0.0.1:9/"}),
        ("tcp_server", {"PORT": "0", "HEALTH_PORT": "0"}),
        ("tcp_client", {"HEALTH_PORT": "0", "TARGET": "127.0.0.1:9"}),
    ],
)
async def test_each_program_is_healthy_and_ends_at_sigterm(module: str, env: Mapping[str, str]) -> None:
    async with program(module, env) as (process, port):
        assert await fetch(port, "/healthz") == b"ok\n"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0


async def test_web_and_traffic_work_together() -> None:
    async with program("api", {"PORT": "0", "POD_NAME": "api-1"}) as (_, api_port):
        upstream = f"http://127.0.0.1:{api_port}/"
        async with program("web", {"PORT": "0", "POD_NAME": "web-1", "UPSTREAM": upstream}) as (_, web_port):
            env = {"TARGET": f"http://127.0.0.1:{web_port}/", "PORT": "0", "RATE": "50"}
            async with program("traffic", env) as (_, port):
                counts: dict[str, Any] = {}
                async with asyncio.timeout(20):
                    while counts.get("ok", 0) < 30:
                        counts = json.loads(await fetch(port, "/counts"))
                        await asyncio.sleep(0.05)
                assert counts["failed"] == 0
                assert counts["answers"] == {"web-1 api-1": counts["ok"]}


async def test_bounded_traffic_fails_when_a_request_failed() -> None:
    env = {"PORT": "0", "TARGET": "http://127.0.0.1:9/", "DURATION_SECONDS": "0.3"}
    async with program("traffic", env) as (process, _):
        async with asyncio.timeout(10):
            assert await process.wait() == 1


@pytest.mark.parametrize("value", ["x", "-1", "inf", "nan"])
def test_bad_numbers_are_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RATE", value)
    with pytest.raises(runtime.SettingError, match=f"RATE='{value}'"):
        runtime.number("RATE", 1)
