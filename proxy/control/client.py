"""A control-plane service as a client sees it: one multiplexed connection, made again whenever it is lost. Pure
asyncio; sockets, TLS and name resolution are passed in.

A call that fails is the caller's to repeat; the waiting between two attempts to connect happens here, once for all
callers.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from proxy.control.backoff import Backoff
from proxy.control.connection import PING_INTERVAL, Connection
from proxy.settings import Address
from proxy.telemetry.counters import RequestSeries
from proxy.telemetry.log import Log
from proxy.wire import grpc

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""All addresses of a name, newest answer; raises ResolutionError."""
Dial = Callable[[Address, Connection], Awaitable[None]]
"""Start to connect (TCP, and TLS where the address is not loopback) and bind the connection to the transport, which
tells it of success or failure; raises OSError if there is nothing to start with.
"""

DIAL_TIMEOUT: Final = 3.0
"""Seconds for one address, in case a dialer forgets its own timeout."""


class ResolutionError(OSError):
    """A name without an answer. `is_final` says that the name server answered: there is no such address now."""

    def __init__(self, message: str, is_final: bool) -> None:
        self.is_final = is_final
        super().__init__(message)


class ControlClient:
    """Calls to one service; connects at the first call and stays connected."""

    def __init__(
        self,
        address: Address,
        *,
        dial: Dial,
        resolve: Resolve,
        log: Log,
        series: RequestSeries | None = None,
        backoff: Backoff | None = None,
        shuffle: Callable[[list[Address]], None] = random.shuffle,
    ) -> None:
        self._address = address
        self._dial = dial
        self._resolve = resolve
        self._log = log
        self._series = series
        self._backoff = backoff or Backoff()
        self._shuffle = shuffle
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._known: list[Address] = []
        self._ping_interval = PING_INTERVAL
        self._is_closed = False
        self._is_heard = False
        self._connected_to = ""
        self.connects = 0
        self.failures = 0

    @property
    def is_connected(self) -> bool:
        """Whether the service itself has been heard on the present connection.

        A connection alone proves little: the sidecar before a dead service accepts connections too.
        """
        return self._is_heard and self._connection is not None and self._connection.is_usable

    async def answers(self) -> bool:
        """Whether the service can be asked now; finds out, where nothing has been heard for a while."""
        return self.is_connected and self._connection is not None and await self._connection.answers()

    async def unary(self, path: str, message: bytes, timeout: float) -> bytes:
        """One message for one message; raises CallError, DEADLINE_EXCEEDED after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                connection = await self.connection()
                async with connection.call(path, message, timeout) as call:
                    answer: bytes | None = None
                    async for received in call:
                        answer = received
        except TimeoutError as error:
            raise grpc.CallError(grpc.Status(grpc.DEADLINE_EXCEEDED, f"no answer within {timeout:g} s")) from error
        if answer is None:
            raise grpc.CallError(grpc.Status(grpc.INTERNAL, "no message in the answer"))
        self._heard()
        return answer

    async def stream(self, path: str, message: bytes) -> AsyncGenerator[bytes, None]:
        """The messages of a server stream; raises CallError where it ends other than well. Close it (aclose) when
        leaving.
        """
        connection = await self.connection()
        async with connection.call(path, message) as call:
            async for received in call:
                self._heard()
                yield received

    async def connection(self) -> Connection:
        """The current connection, waiting for one as long as it takes."""
        while not self._is_closed:
            if self._connection is not None:
                if self._connection.is_usable:
                    return self._connection
                self._ping_interval = self._connection.ping_interval
                self._log.limited(
                    f"lost {self._address}",
                    "control connection lost",
                    service=str(self._address),
                    address=self._connected_to,
                    why=self._connection.reason,
                )
                self._connection = None
            if self._connecting is None:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
            # Callers come and go; the attempt is shared, and so must survive whoever started it.
            await asyncio.shield(self._connecting)
        raise grpc.CallError(grpc.Status(grpc.UNAVAILABLE, "the client is closed"))

    def _heard(self) -> None:
        """A message has come: what is between us works, all the way."""
        self._backoff.reset()
        if not self._is_heard:
            self._is_heard = True
            self._log.info("control connected", service=str(self._address), address=self._connected_to)

    def disconnect(self) -> None:
        """Drop the connection; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """End for good."""
        self._is_closed = True
        self.disconnect()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)

    async def _connect(self) -> Connection:
        """Try until it works: every address of a fresh answer in random order, then wait."""
        try:
            while True:
                for address in await self._addresses():
                    connection = await self._try(address)
                    if connection is not None:
                        self.connects += 1
                        self._connection = connection
                        self._is_heard = False
                        self._connected_to = str(address)
                        return connection
                await asyncio.sleep(self._backoff.delay())
        finally:
            self._connecting = None

    async def _addresses(self) -> list[Address]:
        try:
            found = await self._resolve(self._address.host, self._address.port)
        except ResolutionError as error:
            self.failures += 1
            self._log.limited(
                f"resolve {self._address}", "control name not found", name=str(self._address), error=error
            )
            # When the name server itself is gone, an old answer may still be right. When it says that there is nothing,
            # old pods are gone, and waiting for each of them to time out would only delay the first new one.
            found = [] if error.is_final else self._known
        self._known = list(found)
        addresses = list(found)
        self._shuffle(addresses)
        return addresses

    async def _try(self, address: Address) -> Connection | None:
        connection = Connection(str(self._address), self._ping_interval, self._series)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await self._dial(address, connection)
                await connection.opened()
        except (OSError, TimeoutError) as error:
            self.failures += 1
            connection.close()
            self._log.limited(
                f"dial {self._address}",
                "control connection failed",
                service=str(self._address),
                address=str(address),
                error=error or "timed out",
            )
            return None
        except BaseException:
            connection.close()
            raise
        return connection

    def statistics(self) -> dict[str, object]:
        """For the admin page and tests."""
        connection = {} if self._connection is None else self._connection.statistics()
        return {"address": str(self._address), "connects": self.connects, "failures": self.failures, **connection}
