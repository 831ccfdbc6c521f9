"""One HTTP/2 connection to a control-plane service, and the gRPC calls on it. Opens no socket: a transport feeds it.

Life: `on_connected` (or `on_closed`: it could not be made) -> calls -> either the transport ends (`on_closed`), or
the peer says GOAWAY and the last call ends, or the peer stops answering PINGs. In each case every call still open
fails with UNAVAILABLE.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Protocol, Self

from proxy.control.counting import UNSAID, Counted
from proxy.telemetry.counters import RequestSeries
from proxy.wire import grpc, http2_events

PING_INTERVAL: Final = 10.0
"""Seconds between signs of life asked of the peer while calls are open: a node that vanishes sends no FIN."""
PING_TIMEOUT: Final = 5.0
MAX_PING_INTERVAL: Final = 320.0
"""gRPC servers forbid pings more often than every five minutes unless told otherwise; one that complains gets its
way.
"""
ENHANCE_YOUR_CALM: Final = 11
FRESH: Final = 5.0
"""Seconds for which anything heard proves the peer alive; our servers bear no two pings in less."""


class Transport(Protocol):
    """What a connection needs of the socket below it."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Call:
    """One call under way: iterate over its messages. Leaving the `async with` block ends it, whatever its state."""

    __slots__ = (
        "_connection",
        "_counted",
        "_failed_early",
        "_messages",
        "_reader",
        "_status",
        "_unconsumed",
        "_waiter",
        "stream_id",
    )

    def __init__(self, connection: "Connection", stream_id: int, series: RequestSeries) -> None:
        self.stream_id = stream_id
        self._connection = connection
        self._counted = Counted(series)
        self._reader = grpc.MessageReader()
        self._messages: deque[bytes] = deque()
        self._status: grpc.Status | None = None
        self._failed_early: grpc.Status | None = None
        self._unconsumed = 0
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.forget(self)

    def __aiter__(self) -> "Call":
        return self

    async def __anext__(self) -> bytes:
        """The next message; raises CallError where the call ends in any status but OK."""
        while not self._messages:
            if self._status is not None:
                if self._status.code != grpc.OK:
                    raise grpc.CallError(self._status)
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        if not self._messages:
            self._give_back()
        return message

    # What the connection tells its call.

    def headers(self, headers: list[tuple[bytes, bytes]], is_last: bool) -> None:
        """The first header section."""
        self._failed_early = grpc.status_from_headers(headers)
        status = dict(headers).get(b":status", b"")
        self._counted.status = int(status) if status.isdigit() else 0
        if is_last:
            self._told(headers)

    def data(self, data: bytes) -> None:
        """A piece of the body; its window is given back when nothing complete is waiting to be taken."""
        self._unconsumed += len(data)
        self._counted.answered()
        if self._failed_early is None:
            try:
                self._messages += self._reader.feed(data)
            except grpc.FramingError as error:
                self.finish(grpc.Status(grpc.INTERNAL, str(error)))
                self._connection.forget(self)
                return
        if self._messages:
            self._wake()
        else:
            self._give_back()

    def trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The status, at the end."""
        self._told(trailers)

    def _told(self, headers: list[tuple[bytes, bytes]]) -> None:
        status = self._failed_early or grpc.status_from_trailers(headers) or _NO_STATUS
        self._counted.over(status.code, None)
        self.finish(status)

    def dropped(self) -> None:
        """Its caller has gone, and what may still come is nobody's."""
        self._counted.over(UNSAID, "cancelled")

    def finish(self, status: grpc.Status) -> None:
        """The call is over; the first reason given is the one that counts."""
        self._counted.over(UNSAID, "i/o")
        if self._status is None:
            if status.code == grpc.OK and not self._reader.is_between_messages:
                status = grpc.Status(grpc.INTERNAL, "the stream ended inside a message")
            self._status = status
        self._wake()

    @property
    def is_over(self) -> bool:
        """Whether the status is known; messages may still be waiting."""
        return self._status is not None

    def _give_back(self) -> None:
        if self._unconsumed:
            unconsumed, self._unconsumed = self._unconsumed, 0
            self._connection.consumed(self, unconsumed)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_NO_STATUS: Final = grpc.Status(grpc.UNKNOWN, "the stream ended without a status")


class Connection:
    """A client session bound to one transport."""

    __slots__ = (
        "_authority", "_calls", "_ended", "_heard_at", "_is_going_away", "_loop", "_opened", "_ping_interval",
        "_pinged_at", "_series", "_session", "_sign", "_timer", "_transport", "reason",
    )  # fmt: skip

    def __init__(
        self, authority: str, ping_interval: float = PING_INTERVAL, series: RequestSeries | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._series = series or RequestSeries(())
        self._authority = authority
        self._session = http2_events.ClientSession()
        self._calls: dict[int, Call] = {}
        self._transport: Transport | None = None
        self._is_going_away = False
        self._ping_interval = ping_interval
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._pinged_at = 0.0
        self._sign: asyncio.Future[None] | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = False
        self.reason = ""

    async def opened(self) -> None:
        """Until the transport is there; raises OSError if it could not be made."""
        await asyncio.shield(self._opened)

    @property
    def is_usable(self) -> bool:
        """Whether a new call may be started."""
        return self._transport is not None and not self._ended and not self._is_going_away

    @property
    def ping_interval(self) -> float:
        """What the next connection to the same service should start with."""
        return self._ping_interval

    def call(self, path: str, message: bytes, timeout: float | None = None) -> Call:
        """Start a call with its one request message."""
        if not self.is_usable:
            raise grpc.CallError(grpc.Status(grpc.UNAVAILABLE, self.reason or "the connection is closed"))
        try:
            stream_id = self._session.request(
                grpc.request_headers(path, self._authority, timeout), grpc.encode(message)
            )
        except http2_events.HTTP2Error as error:
            raise grpc.CallError(grpc.Status(grpc.UNAVAILABLE, str(error))) from error
        call = self._calls[stream_id] = Call(self, stream_id, self._series)
        self._flush()
        if self._timer is None and not self._ended:
            self._timer = self._loop.call_later(self._ping_interval, self._ping)
        return call

    async def answers(self) -> bool:
        """Whether the peer shows itself alive: heard a moment ago, or in answer to a ping sent now."""
        if self._calls and self.is_usable and self._loop.time() - self._heard_at >= FRESH:
            if self._pinged_at <= self._heard_at:
                if self._timer is not None:
                    self._timer.cancel()
                self._ping()
            if self._sign is None:
                self._sign = self._loop.create_future()
            await asyncio.shield(self._sign)
        return self.is_usable

    def close(self) -> None:
        """End everything now."""
        if not self._ended and self._transport is not None and not self._session.failed:
            self._session.terminate()
            self._flush()
        self._end("closed by this side")

    # What calls ask for.

    def forget(self, call: Call) -> None:
        """A call whose caller has gone: reset it unless the peer has ended it already."""
        call.dropped()
        if self._calls.pop(call.stream_id, None) is not None and not self._ended:
            self._session.reset(call.stream_id)
            self._flush()
            self._end_if_idle()

    def consumed(self, call: Call, size: int) -> None:
        """The call has taken `size` bytes."""
        if not self._ended:
            self._session.consume(call.stream_id, size)
            self._flush()

    # What the transport tells.

    def on_connected(self, transport: Transport) -> None:
        """The socket (and TLS) is there."""
        if self._ended:
            # Whoever dialled has given up meanwhile.
            transport.close()
            return
        self._transport = transport
        self._opened.set_result(None)
        self._flush()

    def on_data(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._ended:
            return
        self._heard_at = self._loop.time()
        self._show_sign()
        try:
            events = self._session.receive_data(data)
        except http2_events.HTTP2Error as error:
            self._end(f"HTTP/2: {error}")
            return
        self._dispatch(events)
        self._flush()
        self._end_if_idle()

    def on_eof(self) -> None:
        """The peer will say no more."""
        self._end("closed by the peer")

    def on_writable(self) -> None:
        """Nothing to do: requests are small, and HTTP/2 windows bound the rest."""

    def on_closed(self, reason: object) -> None:
        """The socket failed."""
        self._transport = None
        self._end(str(reason))

    # Inside.

    def _dispatch(self, events: list[http2_events.Event]) -> None:
        for event in events:
            if isinstance(event, http2_events.GoAway):
                self._going_away(event)
                continue
            call = self._calls.get(event.stream_id)
            if call is None:
                if isinstance(event, http2_events.Data):
                    # Its caller has gone, but the connection's window is shared by all.
                    self._session.consume(event.stream_id, len(event.data))
            elif isinstance(event, http2_events.Headers):
                if not event.informational:
                    call.headers(event.headers, event.end_stream)
            elif isinstance(event, http2_events.Data):
                call.data(event.data)
            elif isinstance(event, http2_events.Trailers):
                call.trailers(event.headers)
            elif isinstance(event, http2_events.StreamEnded):
                call.finish(_NO_STATUS)
            elif isinstance(event, http2_events.StreamClosed):
                self._calls.pop(event.stream_id, None)
                call.finish(grpc.Status(grpc.UNAVAILABLE, f"stream reset by the peer ({event.error_code})"))

    def _going_away(self, event: http2_events.GoAway) -> None:
        self._is_going_away = True
        self.reason = f"the peer is going away ({event.error_code} {event.debug.decode('utf-8', 'replace')})".strip()
        if event.error_code == ENHANCE_YOUR_CALM:
            self._ping_interval = min(self._ping_interval * 2, MAX_PING_INTERVAL)

    def _flush(self) -> None:
        if self._transport is None or self._session.failed:
            return
        try:
            data = self._session.data_to_send()
        except http2_events.HTTP2Error as error:
            self._end(f"HTTP/2: {error}")
            return
        self._dispatch(self._session.take_events())
        if data and self._transport is not None:
            self._transport.write(data)

    def _end_if_idle(self) -> None:
        if self._ended:
            return
        if not self._session.alive or (self._is_going_away and not self._calls):
            self._end(self.reason or "the session is over")

    def _ping(self) -> None:
        """Every interval while calls are open: ask for a sign of life."""
        self._timer = None
        if self._ended or not self._calls:
            return
        self._pinged_at = self._loop.time()
        self._session.ping()
        self._flush()
        self._timer = self._loop.call_later(PING_TIMEOUT, self._listen)

    def _listen(self) -> None:
        """Any byte since the ping will do: a peer that sends is alive."""
        self._timer = None
        if self._ended:
            return
        if self._heard_at < self._pinged_at:
            self._end(f"no sign of life for {PING_TIMEOUT:.0f} s")
            return
        if self._calls:
            self._timer = self._loop.call_later(self._ping_interval, self._ping)

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self.reason = self.reason or reason
        self._ended = True
        self._show_sign()
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(self.reason))
            # Nobody need be waiting: an exception that is never asked for would be reported by the loop.
            self._opened.exception()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.finish(grpc.Status(grpc.UNAVAILABLE, self.reason))

    def _show_sign(self) -> None:
        if self._sign is not None and not self._sign.done():
            self._sign.set_result(None)
        self._sign = None

    def statistics(self) -> dict[str, object]:
        """For the admin page and tests."""
        return {"calls": len(self._calls), "is_usable": self.is_usable, "reason": self.reason}
