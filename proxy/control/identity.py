"""The pod's identity over its life: one key, certificates for it again and again, contexts that follow.

certify -> validate and load -> wait for 70 % of what is left of its life -> certify. Nothing that fails takes away
what works: until a new certificate is loaded, the old one stays. Issuing, and every name in a certificate, is
identity's own decision.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from proxy.control import messages
from proxy.control.backoff import Backoff
from proxy.control.keypair import KeyGenerationError, KeyPair
from proxy.control.keypair import generate as generate_key_pair
from proxy.control.machine import Machine
from proxy.control.messages import Certificate
from proxy.control.trust import Bundle, TrustBundle
from proxy.telemetry.log import Log
from proxy.wire import grpc

PATH: Final = "/tulle.identity.v1.Identity/Certify"
TIMEOUT: Final = 5.0
"""Seconds for one attempt, connecting included."""
REFRESH_AT: Final = 0.7
"""Share of the remaining life after which the next certificate is asked for at the latest (Linkerd's): identity may be
away for the other 30 %, whenever that begins."""
JITTER: Final = 0.1
"""How much earlier at most, so that pods that started together do not renew together."""
RENEWAL_CAP: Final = 10.0
"""Seconds between two tries at most while a certificate is still valid; without one it is the ordinary backoff."""
RENEWAL_SHARE: Final = 0.1
"""Of what is left of a life, that a pause between two tries may take: short-lived leaves are tried for in time too."""
CLOCK_SECONDS: Final = 60.0
"""How often the wall clock is looked at while a renewal is awaited. Timers stand still while a machine sleeps, and know
nothing of a clock that is set: certificates end all the same."""
REPORT_WITHIN: Final = 10.0
"""Seconds within which a changed trust bundle leads to a Certify, which reports its hash."""
STALE_ISSUER_PAUSES: Final = (60.0, 120.0)
"""Seconds, and up to half as many more, after which one asks again for a certificate of another issuer once the bundle
changed: a kubelet brings identity its new issuer within about a minute and a half, be it after this pod its bundle."""
WAITING_NOTICE: Final = 15.0
"""Seconds between two log lines that say that there is no identity yet."""


class UnaryClient(Protocol):
    """The part of ControlClient that identity uses."""

    async def unary(self, path: str, message: bytes, timeout: float) -> bytes: ...

    def disconnect(self) -> None: ...


class Contexts(Protocol):
    """Where certificates become TLS contexts (proxy.tls.contexts.TLSContexts)."""

    def load(self, chain_der: list[bytes], key_der: bytes, bundle_pem: bytes) -> None:
        """Validate (key fits, chain leads to an anchor) and replace; raises ValueError and changes nothing."""


def refresh_delay(remaining: float, minimum: float, maximum: float, dice: float) -> float:
    """Seconds until the next certificate, of `remaining` seconds of life; `dice` in [0, 1)."""
    share = REFRESH_AT - JITTER * dice
    return max(minimum, min(maximum, remaining * share))


class Identity:
    """Runs the life of one pod's certificates."""

    def __init__(
        self,
        name: str,
        *,
        client: UnaryClient,
        contexts: Contexts,
        bundle: TrustBundle,
        token_file: str,
        log: Log,
        min_refresh: float = 10.0,
        max_refresh: float = 86400.0,
        version: str = "",
        machine: Machine | None = None,
        generate: Callable[[str], Awaitable[KeyPair]] = generate_key_pair,
        now: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._client = client
        self._contexts = contexts
        self._bundle = bundle
        self._token_file = token_file
        self._log = log
        self._min_refresh = min_refresh
        self._max_refresh = max_refresh
        self._version = version
        self._machine = machine
        self._generate = generate
        self._now = now
        self._dice = dice
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._pair: KeyPair | None = None
        self._loaded_bundle = ""
        self._issuer_before: tuple[bytes, ...] = ()
        self._pauses: tuple[float, ...] = ()
        self.certificate: Certificate | None = None
        self.refreshed_at = 0.0
        self.refreshes_ok = 0
        self.refreshes_failed = 0

    @property
    def is_ready(self) -> bool:
        """Whether the first certificate has been loaded; it stays so, since what works is never taken away."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Until the first certificate is loaded; says every WAITING_NOTICE seconds that it is still awaited."""
        while not self._ready.is_set():
            try:
                async with asyncio.timeout(WAITING_NOTICE):
                    await self._ready.wait()
            except TimeoutError:
                self._log.warning("waiting for identity", identity=self.name)

    async def run(self) -> None:
        """For ever: bundle, key, certificate, wait, certificate."""
        bundle = await self._bundle.cell.first()
        self._pair = await self._make_key() if self._machine is None else self._resume(self._machine, bundle)
        end_watch = self._bundle.cell.subscribe(self._bundle_changed)
        first = Backoff()
        renewal = Backoff(base=1.0, cap=RENEWAL_CAP)
        try:
            if self._ready.is_set():
                await self._wait(self._next_delay())
            while True:
                if await self._attempt(self._pair):
                    first.reset()
                    renewal.reset()
                    await self._wait(self._next_delay())
                else:
                    await asyncio.sleep(self._pause(first, renewal))
        finally:
            end_watch()

    def _resume(self, machine: Machine, bundle: Bundle) -> KeyPair:
        """Go on with what the last start kept: a control plane that is away stops no machine. Raises KeptError."""
        kept = machine.read()
        # Even one that is over is what to renew by; identity then says so.
        self.certificate = kept.certificate
        if kept.certificate.valid_until > self._now():
            try:
                self._load(kept.pair, kept.certificate, bundle)
            except ValueError as error:
                self._log.warning("kept certificate does not fit the trust bundle", file=machine.path, why=error)
            else:
                self._log.info("kept certificate loaded", identity=self.name, valid_until=kept.certificate.valid_until)
                self._ready.set()
        return kept.pair

    def _next_delay(self) -> float:
        remaining = (self.certificate.valid_until if self.certificate else 0) - self._now()
        if remaining <= 0:
            self._log.warning("certificate is already over: is this node's clock right?", identity=self.name)
        delay = refresh_delay(remaining, self._min_refresh, self._max_refresh, self._dice())
        if not self._pauses:
            return delay
        pause, *others = self._pauses
        self._pauses = tuple(others)
        return min(delay, pause * (1 + self._dice() / 2))

    def _pause(self, first: Backoff, renewal: Backoff) -> float:
        """Seconds until the next try after one that failed."""
        left = (self.certificate.valid_until if self.certificate else 0) - self._now()
        return min(renewal.delay(), max(left * RENEWAL_SHARE, first.delay())) if left > 0 else first.delay()

    async def _wait(self, delay: float) -> None:
        """`delay` seconds, or less if a new bundle wants to be reported."""
        loop = asyncio.get_running_loop()
        due, deadline = self._now() + delay, loop.time() + delay
        while (left := min(due - self._now(), deadline - loop.time())) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, CLOCK_SECONDS)):
                    await self._hurry.wait()
            if self._hurry.is_set():
                await asyncio.sleep(min(left, REPORT_WITHIN * self._dice()))
                return

    async def _make_key(self) -> KeyPair:
        backoff = Backoff()
        while True:
            try:
                return await self._generate(self.name)
            except (KeyGenerationError, OSError) as error:
                self._log.error("no key", identity=self.name, why=error)
                await asyncio.sleep(backoff.delay())

    async def _attempt(self, pair: KeyPair) -> bool:
        """Ask once, and load what comes; false, with the reason logged, if either fails."""
        self._hurry.clear()
        try:
            certificate = await self._certify(pair)
            bundle = await self._bundle.cell.first()
            self._load(pair, certificate, bundle)
            if self._machine is not None:
                self._machine.keep(pair, certificate)
        except (grpc.CallError, OSError, ValueError) as error:
            self.refreshes_failed += 1
            status = error.status.name if isinstance(error, grpc.CallError) else type(error).__name__
            self._log.limited(f"certify {status}", "no new certificate", identity=self.name, why=error)
            return False
        finally:
            # One call a day is no reason to hold a connection that a thousand other pods hold too.
            self._client.disconnect()
        self.certificate = certificate
        if certificate.chain[1:] != self._issuer_before:
            self._pauses = ()
        self.refreshed_at = self._now()
        self.refreshes_ok += 1
        self._log.info("certificate loaded", identity=self.name, valid_until=certificate.valid_until)
        self._ready.set()
        return True

    async def _certify(self, pair: KeyPair) -> Certificate:
        bundle = await self._bundle.cell.first()
        if self._machine is None:
            request = messages.certify_request(self.name, self._token(), pair.request, bundle.sha256, self._version)
        else:
            chain = self.certificate.chain if self.certificate is not None else ()
            request = messages.certify_request(
                self.name, b"", pair.request, bundle.sha256, self._version, self._machine.workload, chain
            )
        return messages.certificate(await self._client.unary(PATH, request, TIMEOUT))

    def _token(self) -> bytes:
        """Read anew each time: the kubelet replaces it within the hour."""
        with open(self._token_file, "rb") as file:
            return file.read().strip()

    def _load(self, pair: KeyPair, certificate: Certificate, bundle: Bundle) -> None:
        self._contexts.load(list(certificate.chain), pair.key, bundle.pem)
        self._loaded_bundle = bundle.sha256

    def _bundle_changed(self, bundle: Bundle) -> None:
        """New anchors: trust them at once with the certificate that there is, and report them soon."""
        if self.certificate is None or self._pair is None or bundle.sha256 == self._loaded_bundle:
            return
        try:
            self._load(self._pair, self.certificate, bundle)
        except ValueError as error:
            # Our leaf's anchor is not among them: a new leaf may be of an issuer that is. Until then the old anchors
            # stay.
            self._log.warning("trust bundle does not fit our certificate", sha256=bundle.sha256, why=error)
        self._issuer_before, self._pauses = self.certificate.chain[1:], STALE_ISSUER_PAUSES
        self._hurry.set()

    def families(self) -> list[tuple[str, str, str, list[tuple[tuple[tuple[str, str], ...], float]]]]:
        """What `/metrics` says about certificates, as exposition takes it."""
        expiry = self.certificate.valid_until if self.certificate else 0
        prefix = "control_identity_cert_"
        return [
            (f"{prefix}expiration_timestamp_seconds", "gauge", "When the certificate ends.", [((), expiry)]),
            (f"{prefix}refresh_timestamp_seconds", "gauge", "When it was loaded.", [((), self.refreshed_at)]),
            (
                f"{prefix}refreshes_total",
                "counter",
                "Attempts to get a certificate, by result.",
                [((("result", "ok"),), self.refreshes_ok), ((("result", "error"),), self.refreshes_failed)],
            ),
        ]

    def statistics(self) -> dict[str, object]:
        """For the admin page and tests."""
        return {
            "identity": self.name,
            "is_ready": self.is_ready,
            "valid_until": self.certificate.valid_until if self.certificate else None,
            "trust_bundle_sha256": self._loaded_bundle,
            "refreshes_ok": self.refreshes_ok,
            "refreshes_failed": self.refreshes_failed,
        }
