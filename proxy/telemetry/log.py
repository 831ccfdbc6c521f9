"""The proxy's log: one line per event on stdout, plain or JSON. It does no I/O but that write, and reads no settings.

`logging` is not used: a line is a short event in words and fields, and a warning that traffic can cause is limited in
rate by its key, so that whoever sends bad bytes cannot fill a disk.
"""

import sys
import time
from collections.abc import Callable
from json import dumps
from typing import Final

LEVELS: Final = ("error", "warn", "info", "debug")
LIMIT_INTERVAL: Final = 10.0
"""Seconds in which one key of `limited` is written at most once."""
MAX_KEYS: Final = 256
"""Keys of `limited` that are remembered; keys are few and fixed, so reaching it means a key holds peer data."""


class Log:
    """Where events go. `level` may be changed while it is in use."""

    __slots__ = ("_clock", "_is_json", "_limited", "_now", "_rank", "_write", "on_level")

    def __init__(
        self,
        level: str = "info",
        style: str = "plain",
        write: Callable[[str], object] | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_json = style == "json"
        self._write = write or _to_stdout
        self._now = now
        self._clock = clock
        self._limited: dict[str, tuple[float, int]] = {}
        self.on_level: Callable[[str], object] | None = None
        self.level = level

    @property
    def level(self) -> str:
        """The least severe level that is written."""
        return LEVELS[self._rank]

    @level.setter
    def level(self, level: str) -> None:
        if level not in LEVELS:
            raise ValueError(f"{level!r} is not a log level: write one of {', '.join(LEVELS)}")
        self._rank = LEVELS.index(level)
        if self.on_level is not None:
            self.on_level(level)

    def error(self, event: str, **fields: object) -> None:
        """Something that needs a person."""
        self._line(0, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something that went wrong and is being handled."""
        self._line(1, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """A change of state worth knowing of."""
        self._line(2, event, fields)

    def debug(self, event: str, **fields: object) -> None:
        """What a developer asks for."""
        self._line(3, event, fields)

    def limited(self, key: str, event: str, **fields: object) -> None:
        """A warning that a peer can cause: once per key and LIMIT_INTERVAL; the next line says how many were left
        out.
        """
        if self._rank < 1:
            return
        now = self._clock()
        last, left_out = self._limited.get(key, (float("-inf"), 0))
        if now - last < LIMIT_INTERVAL:
            self._limited[key] = (last, left_out + 1)
            return
        if key not in self._limited and len(self._limited) >= MAX_KEYS:
            self._limited.clear()
        self._limited[key] = (now, 0)
        if left_out:
            fields["left_out"] = left_out
        self._line(1, event, fields)

    def _line(self, rank: int, event: str, fields: dict[str, object]) -> None:
        if rank > self._rank:
            return
        now = self._now()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        stamp = f"{second}.{int(now * 1000) % 1000:03d}Z"
        if self._is_json:
            record = {"timestamp": stamp, "level": LEVELS[rank], "event": event}
            self._write(dumps(record | fields, default=str) + "\n")
        else:
            tail = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
            self._write(f"{stamp} {LEVELS[rank].upper():5} {_one_line(event)}{tail}\n")


def _plain(value: object) -> str:
    """A field in a plain line: quoted where spaces, quotes or control characters would blur where it ends."""
    text = str(value)
    return text if text and text.isprintable() and not any(c in ' "=' for c in text) else dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else dumps(text)


def _to_stdout(line: str) -> None:
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except (OSError, ValueError):
        # Whoever read our log has gone: that must not end a proxy.
        pass
