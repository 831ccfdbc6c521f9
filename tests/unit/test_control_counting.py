"""What calls of the control plane count as, against a real gRPC server: well, refused, given up, broken off."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from proxy.control.client import ControlClient
from proxy.control.resolving import resolve
from proxy.settings import Address
from proxy.telemetry.counters import RequestSeries
from proxy.telemetry.log import Log
from proxy.wire.grpc import CallError
from tests.unit.test_control_client import count, dial, echo, server

pytestmark = pytest.mark.asyncio


def counted(port: int) -> tuple[ControlClient, RequestSeries]:
    series = RequestSeries(())
    log = Log(write=lambda _: None)
    return ControlClient(Address("127.0.0.1", port), dial=dial, resolve=resolve, log=log, series=series), series


def endings(series: RequestSeries) -> list[tuple[int, int, str | None, bool, int]]:
    return [(each.status, each.grpc_status, each.error, each.is_failure, each.count) for each in series.outcomes]


async def test_an_answer_is_a_success_with_its_latency() -> None:
    async with server(unary=echo, stream=count) as (_, port):
        client, series = counted(port)
        for _ in range(3):
            await client.unary("/t.S/Ask", b"", 5)
        assert [message async for message in client.stream("/t.S/Watch", b"2")] == [b"0", b"1"]
        await client.close()
    assert series.requests == 4
    assert endings(series) == [(200, 0, None, False, 4)]
    assert [(each.status, each.count) for each in series.latencies] == [(200, 4)]


async def test_a_refusal_is_told_by_its_code() -> None:
    async def refuse(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND if request else grpc.StatusCode.UNAVAILABLE, "no")
        return b""

    async with server(unary=refuse) as (_, port):
        client, series = counted(port)
        for request in (b"", b"x"):
            with pytest.raises(CallError):
                await client.unary("/t.S/Ask", request, 5)
        await client.close()
    assert endings(series) == [(200, 14, None, True, 1), (200, 5, None, False, 1)]


async def test_who_gives_up_and_what_breaks_off_count_as_errors() -> None:
    async def hold(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(60)

    async with server(stream=hold) as (_, port):
        client, series = counted(port)
        stream = client.stream("/t.S/Watch", b"")
        assert await anext(stream) == b"first"
        await stream.aclose()
        assert endings(series) == [(200, -2, "cancelled", True, 1)]
        stream = client.stream("/t.S/Watch", b"")
        assert await anext(stream) == b"first"
        await client.close()
        with pytest.raises(CallError):
            await anext(stream)
        assert endings(series)[1:] == [(200, -2, "i/o", True, 1)]
        assert series.requests == 2
