"""The trust bundle as a live value: the file is looked at again and again, so that anchors rotate with no restart."""

import asyncio
import os
from typing import Final

from proxy.control.cells import Cell
from proxy.telemetry.log import Log
from proxy.tls.contexts import sha256

POLL_INTERVAL: Final = 5.0
"""Seconds. A mounted ConfigMap changes by a symlink swap that inotify on the file would miss."""
MAX_BUNDLE: Final = 1 << 20
"""Bytes: what a ConfigMap can hold."""

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


class BundleError(ValueError):
    """A bundle that cannot be one; the one before it stays."""


class Bundle:
    """The anchors (PEM) and the hash by which an anchor rotation recognises them."""

    __slots__ = ("pem", "sha256")

    def __init__(self, pem: bytes) -> None:
        if _BEGIN not in pem:
            raise BundleError("no certificate in PEM form")
        if len(pem) > MAX_BUNDLE:
            raise BundleError(f"more than {MAX_BUNDLE} bytes")
        self.pem = pem
        self.sha256 = sha256(pem).hex()

    def __repr__(self) -> str:
        return f"Bundle(sha256={self.sha256[:12]}..., {self.pem.count(_BEGIN)} anchors)"


class TrustBundle:
    """Follows one file; `cell` holds the newest bundle that was good."""

    def __init__(self, path: str, log: Log, interval: float = POLL_INTERVAL) -> None:
        self.path = path
        self.cell: Cell[Bundle] = Cell()
        self._log = log
        self._interval = interval
        self._seen: tuple[int, int, int] | None = None

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            self.look()
            await asyncio.sleep(self._interval)

    def look(self) -> None:
        """Read the file if it looks different; set the cell if it is different and good."""
        try:
            stat = os.stat(self.path)
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return
            with open(self.path, "rb") as file:
                bundle = Bundle(file.read(MAX_BUNDLE + 1))
        except (OSError, BundleError) as error:
            kept = "none yet" if self.cell.value is None else self.cell.value.sha256
            self._log.limited("bundle", "trust bundle unreadable", file=self.path, why=error, kept=kept)
            return
        self._seen = seen
        if self.cell.value is None or self.cell.value.sha256 != bundle.sha256:
            self._log.info("trust bundle loaded", sha256=bundle.sha256)
            self.cell.set(bundle)
