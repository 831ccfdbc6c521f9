"""Messages between the process that accepts and one that carries: JSON, each behind four bytes of length. I/O; what
they mean is `accepting`'s and `carrying`'s.
"""

import asyncio
import json
import socket
from typing import Any, Final

Message = dict[str, Any]

MAX_MESSAGE: Final = 16 << 20
"""Bytes. The longest are labels of 512 series, some hundred kilobytes; a trust bundle has at most a megabyte."""


class Channel:
    """One end; each side reads in one task."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Take the socket over."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)

    def send(self, message: Message) -> None:
        """Send without waiting; nothing happens when the other side has gone."""
        if self._writer is not None and not self._writer.is_closing():
            data = json.dumps(message).encode()
            self._writer.write(len(data).to_bytes(4, "big") + data)

    async def sent(self) -> None:
        """Until the other side has taken most of what was sent."""
        if self._writer is not None:
            await self._writer.drain()

    async def receive(self) -> Message | None:
        """The next message; None when the other side has gone."""
        assert self._reader is not None
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > MAX_MESSAGE:
                return None
            message: Message = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return message

    def close(self) -> None:
        """Say no more."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()
