"""The issuer's files, re-read while running: does I/O. A pair that cannot be used is refused loudly and the one in use
is kept.

What makes a pair usable is decided in `authority`.
"""

import asyncio
import contextlib
import datetime
import os
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from components.identity.authority import Issuer, IssuerError, anchors_of, load_issuer

POLL_SECONDS: Final = 5.0
"""How often the files are looked at; the kubelet itself brings a changed Secret within about a minute."""
MAX_ANCHORS: Final = 16
"""Anchors of a bundle that get a series of their own."""
MAX_FILE: Final = 1024 * 1024
"""A Secret or ConfigMap holds at most this much."""

EXPIRY = Gauge(
    "tulle_identity_issuer_expiry_timestamp_seconds", "When the issuer in use expires (Unix time); 0 without one"
)
LIFETIME = Gauge("tulle_identity_issuer_lifetime_seconds", "The whole life of the issuer in use")
ANCHOR_EXPIRY = Gauge(
    "tulle_identity_anchor_expiry_timestamp_seconds", "When each anchor of the trust bundle expires", ["anchor"]
)
LOADS = Counter("tulle_identity_issuer_loads_total", "Readings of changed issuer files", ["result", "reason"])


class IssuerFiles:
    """The issuer in use."""

    def __init__(self, issuer_dir: Path, bundle: Path) -> None:
        self._issuer_dir = issuer_dir
        self._bundle = bundle
        self._seen: tuple[bytes, bytes, bytes] | None = None
        self._log = structlog.get_logger()
        self.current: Issuer | None = None
        self.bundle = b""
        """The anchors (PEM) that the issuer in use was checked against."""
        self.problem = "the issuer has not been read yet"

    def __repr__(self) -> str:
        return f"IssuerFiles({self.current!r}, problem={self.problem!r})"

    async def run(self) -> None:
        """Look at the files for ever."""
        while True:
            self.read(datetime.datetime.now(datetime.UTC))
            await asyncio.sleep(POLL_SECONDS)

    def read(self, now: datetime.datetime) -> None:
        """Read the files once, and take what they hold if it is new and usable."""
        try:
            folder = _current(self._issuer_dir)
            contents = (_read(folder / "tls.crt"), _read(folder / "tls.key"), _read(self._bundle))
        except OSError as error:
            self._refuse(
                "unreadable", f"{error.filename}: {error.strerror}; identity mounts the Secret tulle-issuer there"
            )
            return
        # By content, not by time: the kubelet swaps a directory link, and a pair may become valid (or stop being so)
        # meanwhile.
        if contents == self._seen and not self.problem and self.current is not None and self.current.not_after > now:
            return
        try:
            issuer = load_issuer(*contents, now)
        except IssuerError as error:
            self._seen = contents
            self._refuse(error.reason, str(error))
            return
        if contents != self._seen or self.problem:
            LOADS.labels("loaded", "").inc()
            self._log.info(
                "issuer_loaded",
                subject=issuer.certificate.subject.rfc4514_string(),
                not_after=issuer.not_after.isoformat(),
            )
        self._seen, self.current, self.problem = contents, issuer, ""
        self.bundle = contents[2]
        EXPIRY.set(issuer.not_after.timestamp())
        LIFETIME.set((issuer.not_after - issuer.certificate.not_valid_before_utc).total_seconds())
        ANCHOR_EXPIRY.clear()
        # A bundle is bounded by the size of its ConfigMap; more than a few anchors are a rotation gone wrong.
        for name, end in anchors_of(contents[2])[:MAX_ANCHORS]:
            ANCHOR_EXPIRY.labels(name).set(end.timestamp())

    def _refuse(self, reason: str, message: str) -> None:
        if message == self.problem:
            return
        self.problem = message
        LOADS.labels("refused", reason).inc()
        kept = None if self.current is None else self.current.certificate.subject.rfc4514_string()
        self._log.error("issuer_refused", reason=reason, error=message, kept=kept)


def _current(folder: Path) -> Path:
    """The one version of a mounted Secret to read from: the kubelet moves the link `..data` to a new folder, and a
    certificate of one version with the key of the next would be refused.
    """
    link = folder / "..data"
    return link.resolve() if link.is_symlink() else folder


def _read(path: Path) -> bytes:
    with contextlib.closing(os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")) as file:
        return file.read(MAX_FILE)
