"""The control client against a real gRPC server (grpc.aio) on loopback: what it does when the server answers, fails,
dies.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from proxy.control.backoff import Backoff
from proxy.control.client import ControlClient, ResolutionError
from proxy.control.connection import Connection
from proxy.control.resolving import absolute, resolve
from proxy.settings import Address
from proxy.telemetry.log import Log
from proxy.wire import grpc as framing

pytestmark = pytest.mark.asyncio

Handler = Callable[[bytes, Any], Any]


class AsyncioProtocol(asyncio.Protocol):
    """The loop's own plain sockets in place of proxy.io, so that these tests need nothing compiled but HTTP/2."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.on_connected(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.connection.on_data(data)

    def eof_received(self) -> None:
        self.connection.on_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.on_closed(exc or "closed")


async def dial(address: Address, connection: Connection) -> None:
    await asyncio.get_running_loop().create_connection(lambda: AsyncioProtocol(connection), address.host, address.port)


@asynccontextmanager
async def server(
    unary: Handler | None = None, stream: Handler | None = None, port: int = 0
) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    handlers = {}
    if unary:
        handlers["Ask"] = grpc.unary_unary_rpc_method_handler(unary)
    if stream:
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(stream)
    running = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", handlers),))
    bound = running.add_insecure_port(f"127.0.0.1:{port}")
    await running.start()
    try:
        yield running, bound
    finally:
        await running.stop(None)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest_asyncio.fixture
async def make_client(lines: list[str]) -> AsyncIterator[Callable[..., ControlClient]]:
    made: list[ControlClient] = []

    def make(port: int, host: str = "127.0.0.1", **changes: Any) -> ControlClient:
        arguments: dict[str, Any] = {
            "dial": dial, "resolve": resolve, "log": Log("debug", write=lines.append), "backoff": Backoff(0.01, 0.05),
        }  # fmt: skip
        made.append(ControlClient(Address(host, port), **arguments | changes))
        return made[-1]

    yield make
    for client in made:
        await client.close()


async def echo(request: bytes, context: Any) -> bytes:
    return b"echo " + request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for n in range(int(request)):
        yield b"%d" % n


async def collect(client: ControlClient, request: bytes) -> list[bytes]:
    return [message async for message in client.stream("/t.S/Watch", request)]


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_unary_call_gets_its_answer(make_client: Callable[..., ControlClient]) -> None:
    async with server(unary=echo) as (_, port):
        client = make_client(port)
        assert await client.unary("/t.S/Ask", b"hello", 5) == b"echo hello"
        assert await client.unary("/t.S/Ask", b"", 5) == b"echo "
        assert client.connects == 1


async def test_calls_share_one_connection(make_client: Callable[..., ControlClient]) -> None:
    async with server(unary=echo, stream=count) as (_, port):
        client = make_client(port)
        answers = await asyncio.gather(
            *(client.unary("/t.S/Ask", b"%d" % n, 5) for n in range(50)), collect(client, b"500")
        )
        assert answers[:50] == [b"echo %d" % n for n in range(50)]
        assert len(answers[50]) == 500
        assert client.connects == 1


async def test_messages_larger_than_every_window_arrive(make_client: Callable[..., ControlClient]) -> None:
    async def large(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for n in range(3):
            yield bytes([n]) * 3_000_000

    async def size(request: bytes, context: Any) -> bytes:
        return b"%d" % len(request)

    async with server(unary=size, stream=large) as (_, port):
        client = make_client(port)
        assert await collect(client, b"") == [bytes([n]) * 3_000_000 for n in range(3)]
        assert await client.unary("/t.S/Ask", b"x" * 1_000_000, 5) == b"1000000"


async def test_a_slow_reader_holds_the_server_back_and_not_its_neighbours(
    make_client: Callable[..., ControlClient],
) -> None:
    produced = 0

    async def flood(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal produced
        while True:
            produced += 1
            yield b"x" * 10_000

    async with server(unary=echo, stream=flood) as (_, port):
        client = make_client(port)
        stream = client.stream("/t.S/Watch", b"")
        await anext(stream)
        await asyncio.sleep(0.3)
        held = produced
        assert held < 500
        assert await client.unary("/t.S/Ask", b"still", 5) == b"echo still"
        for _ in range(held + 50):
            await anext(stream)
        assert produced > held
        await stream.aclose()


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_refusal_carries_its_code_and_words(
    make_client: Callable[..., ControlClient], code: grpc.StatusCode
) -> None:
    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(code, "nein: 100 % sicher, für immer")
        raise AssertionError

    async with server(unary=refuse) as (_, port):
        with pytest.raises(framing.CallError) as raised:
            await make_client(port).unary("/t.S/Ask", b"", 5)
        assert raised.value.status == framing.Status(code.value[0], "nein: 100 % sicher, für immer")
        assert raised.value.status.name == code.name


async def test_an_unknown_method_is_unimplemented(make_client: Callable[..., ControlClient]) -> None:
    async with server(unary=echo) as (_, port):
        with pytest.raises(framing.CallError, match="UNIMPLEMENTED"):
            await make_client(port).unary("/t.S/Nothing", b"", 5)


async def test_a_stream_that_fails_after_messages_gives_them_first(make_client: Callable[..., ControlClient]) -> None:
    async def fail(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with server(stream=fail) as (_, port):
        stream = make_client(port).stream("/t.S/Watch", b"")
        assert await anext(stream) == b"one"
        with pytest.raises(framing.CallError, match="draining"):
            await anext(stream)


async def test_the_deadline_ends_a_call_and_tells_the_server(make_client: Callable[..., ControlClient]) -> None:
    cancelled = asyncio.Event()

    async def hang(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with server(unary=hang) as (_, port):
        client = make_client(port)
        with pytest.raises(framing.CallError, match="DEADLINE_EXCEEDED"):
            await client.unary("/t.S/Ask", b"", 0.2)
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_leaving_a_stream_cancels_it_on_the_server(make_client: Callable[..., ControlClient]) -> None:
    left = asyncio.Event()

    async def forever(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)
        finally:
            left.set()

    async with server(unary=echo, stream=forever) as (_, port):
        client = make_client(port)
        stream = client.stream("/t.S/Watch", b"")
        assert await anext(stream) == b"x"
        await stream.aclose()
        await asyncio.wait_for(left.wait(), 5)
        assert await client.unary("/t.S/Ask", b"", 5) == b"echo "
        assert client.connects == 1


async def test_it_reconnects_when_the_server_comes_back(make_client: Callable[..., ControlClient]) -> None:
    async def one_then_hang(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(60)

    async with server(stream=one_then_hang) as (_, port):
        client = make_client(port)
        stream = client.stream("/t.S/Watch", b"")
        assert await anext(stream) == b"first"
    with pytest.raises(framing.CallError, match=r"UNAVAILABLE|CANCELLED|going away"):
        await anext(stream)
    assert not client.is_connected
    waiting = asyncio.create_task(collect(client, b"3"))
    await until(lambda: client.failures >= 3)
    async with server(stream=count, port=port):
        assert await asyncio.wait_for(waiting, 5) == [b"0", b"1", b"2"]
    assert client.connects == 2


async def test_a_connection_counts_once_the_service_itself_is_heard(
    make_client: Callable[..., ControlClient], lines: list[str]
) -> None:
    """As behind the sidecar of a service that has died: connections are taken, and end."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    front = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = front.sockets[0].getsockname()[1]
    client = make_client(port)
    for _ in range(3):
        with pytest.raises(framing.CallError, match="UNAVAILABLE"):
            await client.unary("/t.S/Ask", b"", 5)
        assert not client.is_connected
    assert client.connects == 3
    assert not any("control connected" in line for line in lines)
    assert any("control connection lost" in line for line in lines)
    front.close()
    async with server(unary=echo, port=port):
        assert await client.unary("/t.S/Ask", b"", 5) == b"echo "
        assert client.is_connected
    assert len([line for line in lines if "control connected" in line]) == 1


async def test_a_server_that_drains_finishes_its_calls_while_new_ones_go_elsewhere(
    make_client: Callable[..., ControlClient],
) -> None:
    release = asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        await release.wait()
        return b"done"

    async with server(unary=wait) as (old, port):
        where = [Address("127.0.0.1", port)]

        async def roll(host: str, _: int) -> list[Address]:
            return where

        client = make_client(port, "destination", resolve=roll)
        call = asyncio.create_task(client.unary("/t.S/Ask", b"", 10))
        await until(lambda: client.connects == 1)
        await asyncio.sleep(0.1)
        async with server(unary=echo) as (_, new_port):
            where[:] = [Address("127.0.0.1", new_port)]
            stopping = asyncio.create_task(old.stop(5))
            await until(lambda: not client.statistics()["is_usable"])
            assert await client.unary("/t.S/Ask", b"new", 5) == b"echo new"
            release.set()
            assert await asyncio.wait_for(call, 5) == b"done"
            await stopping


async def test_a_dead_address_is_passed_over(make_client: Callable[..., ControlClient]) -> None:
    async with server(unary=echo) as (_, port):

        async def both(host: str, _: int) -> list[Address]:
            return [Address("127.0.0.1", 1), Address("127.0.0.1", port)]

        client = make_client(port, "destination", resolve=both, shuffle=lambda addresses: None)
        assert await client.unary("/t.S/Ask", b"", 5) == b"echo "
        assert client.failures == 1


async def test_a_silent_name_server_leaves_the_old_addresses_and_a_final_answer_does_not(
    make_client: Callable[..., ControlClient],
) -> None:
    answers: list[list[Address] | ResolutionError] = []

    async def scripted(host: str, _: int) -> list[Address]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, ResolutionError):
            raise answer
        return answer

    dialled: list[Address] = []

    async def refuse(address: Address, connection: Connection) -> None:
        dialled.append(address)
        raise ConnectionRefusedError("no")

    old = Address("10.0.0.1", 1)
    answers[:] = [[old], ResolutionError("lost datagram", False), ResolutionError("no such name", True)]
    client = make_client(1, "destination", resolve=scripted, dial=refuse)
    waiting = asyncio.create_task(client.unary("/t.S/Ask", b"", 60))
    await until(lambda: client.failures >= 8)
    assert dialled == [old, old]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_server_that_speaks_something_else_is_an_error_and_no_hang(
    make_client: Callable[..., ControlClient],
) -> None:
    async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(http1, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    with pytest.raises(framing.CallError, match="UNAVAILABLE"):
        await make_client(port).unary("/t.S/Ask", b"", 5)
    other.close()


async def test_a_peer_that_stops_answering_is_given_up(
    make_client: Callable[..., ControlClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.connection.PING_TIMEOUT", 0.1)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    silent = await asyncio.start_server(mute, "127.0.0.1", 0)
    client = make_client(silent.sockets[0].getsockname()[1])
    client._ping_interval = 0.1
    with pytest.raises(framing.CallError, match="no sign of life"):
        await client.unary("/t.S/Ask", b"", 5)
    silent.close()


async def test_whether_it_answers_is_found_out(
    make_client: Callable[..., ControlClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.connection.FRESH", 0.1)
    monkeypatch.setattr("proxy.control.connection.PING_TIMEOUT", 0.3)
    is_mute = False

    async def first_then_silence(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if not is_mute:
                    sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, onward[1]), copy(onward[0], writer))

    async with server(stream=first_then_silence) as (_, port):
        between = await asyncio.start_server(relay, "127.0.0.1", 0)
        client = make_client(between.sockets[0].getsockname()[1])
        assert not await client.answers()
        stream = client.stream("/t.S/Watch", b"")
        await anext(stream)
        assert await client.answers()
        await asyncio.sleep(0.2)
        assert all(await asyncio.gather(client.answers(), client.answers()))
        is_mute = True
        await asyncio.sleep(0.2)
        assert await asyncio.wait_for(client.answers(), 2) is False
        with pytest.raises(framing.CallError, match="no sign of life"):
            await anext(stream)
        between.close()


async def test_a_peer_that_answers_pings_is_kept(make_client: Callable[..., ControlClient]) -> None:
    async def quiet(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.6)
        return b"at last"

    options_server = server(unary=quiet)
    async with options_server as (_, port):
        client = make_client(port)
        client._ping_interval = 0.25
        assert await client.unary("/t.S/Ask", b"", 5) == b"at last"


async def test_closing_ends_whoever_waits(make_client: Callable[..., ControlClient]) -> None:
    client = make_client(1)
    waiting = asyncio.create_task(client.unary("/t.S/Ask", b"", 60))
    await until(lambda: client.failures > 0)
    await client.close()
    with pytest.raises((framing.CallError, asyncio.CancelledError)):
        await waiting


async def test_failures_are_logged_once_and_not_at_every_try(
    make_client: Callable[..., ControlClient], lines: list[str]
) -> None:
    client = make_client(1)
    waiting = asyncio.create_task(client.unary("/t.S/Ask", b"", 60))
    await until(lambda: client.failures > 5)
    waiting.cancel()
    assert len([line for line in lines if "control connection failed" in line]) == 1


async def test_names_of_services_are_asked_for_absolutely() -> None:
    assert absolute("destination-headless.tulle.svc.cluster.local") == "destination-headless.tulle.svc.cluster.local."
    assert absolute("localhost") == "localhost"
    assert await resolve("::1", 5) == [Address("::1", 5)]
    assert Address("127.0.0.1", 80) in await resolve("localhost", 80)
    with pytest.raises(ResolutionError):
        await resolve("no-such-name.invalid", 80)
