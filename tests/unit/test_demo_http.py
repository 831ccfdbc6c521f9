"""components.demo.http: framing, keep-alive and the drain, as conversations over loopback."""

import asyncio

import pytest

from components.demo.http import (
    Client,
    HTTPError,
    Request,
    Response,
    Server,
    Target,
    parse_request,
    parse_target,
    read_body,
    read_head,
)


def fed(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1024)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def echo_path(request: Request) -> Response:
    return Response(200, request.path.encode())


async def running(handler: object = echo_path) -> Server:
    server = Server(handler, 0, "127.0.0.1")  # type: ignore[arg-type]
    await server.start()
    return server


def target_of(server: Server, path: str = "/") -> Target:
    return Target("127.0.0.1", server.port, path)


async def test_head_is_split_into_start_line_and_lower_cased_headers() -> None:
    assert await read_head(fed(b"GET / HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\n\r\n")) == (
        "GET / HTTP/1.1",
        {"host": "a", "x-y": "z"},
    )


async def test_close_between_messages_is_not_an_error() -> None:
    assert await read_head(fed(b"")) is None


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (b"GET / HT", "closed in head"),
        (b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", "header without colon"),
        (b"x" * 5000 + b"\r\n\r\n", "head too long"),
    ],
)
async def test_bad_heads_are_refused_with_a_cause(sent: bytes, cause: str) -> None:
    with pytest.raises(HTTPError, match=cause):
        await read_head(fed(sent))


@pytest.mark.parametrize(
    ("headers", "cause"),
    [
        ({"transfer-encoding": "chunked"}, "transfer-encoding"),
        ({"content-length": "-1"}, "bad content-length"),
        ({"content-length": "9"}, "closed in body"),
    ],
)
async def test_bodies_that_cannot_be_framed_are_refused(headers: dict[str, str], cause: str) -> None:
    with pytest.raises(HTTPError, match=cause):
        await read_body(fed(b"short"), headers)


def test_request_line_is_split_into_path_and_query() -> None:
    request = parse_request("POST /delay?ms=200 HTTP/1.1", {}, b"")
    assert (request.method, request.path, request.query) == ("POST", "/delay", {"ms": "200"})
    with pytest.raises(HTTPError, match="bad request line"):
        parse_request("GET /", {}, b"")


def test_target_is_read_from_an_address() -> None:
    assert parse_target("http://web.demo:8080/?token=a") == Target("web.demo", 8080, "/?token=a")
    assert parse_target("http://web.demo") == Target("web.demo", 80, "/")
    with pytest.raises(ValueError, match="ftp://x"):
        parse_target("ftp://x")


async def test_client_keeps_one_connection_for_many_requests() -> None:
    server = await running()
    client = Client(target_of(server, "/a"), connections=4, seconds=5)
    for _ in range(5):
        assert (await client.get()).body == b"/a"
    assert client.opened == 1
    assert (await client.get_once()).body == b"/a"
    assert client.opened == 2
    assert await server.drain(1)


async def test_drain_finishes_the_running_request_and_refuses_the_next() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        begun.set()
        await release.wait()
        return Response(200, b"done")

    server = await running(slow)
    target = target_of(server)
    running_request = asyncio.create_task(Client(target, 1, 5).get())
    await begun.wait()
    drain = asyncio.create_task(server.drain(5))
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await Client(target, 1, 5).get()
    release.set()
    response = await running_request
    assert (response.status, response.body, response.headers["connection"]) == (200, b"done", "close")
    assert await drain


async def test_drain_closes_idle_connections_at_once() -> None:
    server = await running()
    target = target_of(server)
    await Client(target, 1, 5).get()
    async with asyncio.timeout(1):
        assert await server.drain(5)
    with pytest.raises(ConnectionRefusedError):
        await Client(target, 1, 5).get()


async def test_drain_answers_a_request_that_was_already_received() -> None:
    server = await running()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /queued HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await server.drain(5)
    assert b"/queued" in await reader.read()


async def test_drain_says_when_a_request_was_cut_off() -> None:
    begun = asyncio.Event()

    async def stuck(_: Request) -> Response:
        begun.set()
        await asyncio.sleep(60)
        return Response(200)

    server = await running(stuck)
    request = asyncio.create_task(Client(target_of(server), 1, 5).get())
    await begun.wait()
    assert not await server.drain(0.05)
    request.cancel()


async def test_malformed_request_is_answered_400() -> None:
    server = await running()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_client_does_not_retry_a_connection_closed_before_the_response() -> None:
    accepted = 0

    async def rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((HTTPError, ConnectionResetError)):
            await Client(Target("127.0.0.1", port, "/"), 1, 5).get()
    assert accepted == 1
