"""What carries traffic in one process: both directions, discovery for them, their counters. The part of the composition
root that a proxy of one process has itself, and that each worker has where there are several.

Certificates come from outside (`load`), connections too: who listens is `proxy.app`'s or `proxy.workers`' choice.
"""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from proxy import descriptors
from proxy.api import labels
from proxy.control.client import ControlClient, Dial
from proxy.control.destination import Destination
from proxy.control.dialing import dialer
from proxy.control.resolving import resolve
from proxy.control.trust import TrustBundle
from proxy.inbound.accept import Inbound
from proxy.io.reactor import Reactor, trim_heap
from proxy.outbound.accept import Outbound
from proxy.outbound.discover import Destinations
from proxy.settings import Address, Settings
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.exposition import Family
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.tls.contexts import TLSContexts

PEM_END: Final = b"-----END CERTIFICATE-----"
HOUSEKEEPING_SECONDS: Final = 10.0
"""How often idle series and idle destinations are looked for."""


class Traffic:
    """Both directions of one process."""

    def __init__(
        self, settings: Settings, log: Log, reactor: Reactor, contexts: TLSContexts, bundle: TrustBundle
    ) -> None:
        self.settings = settings
        self.log = log
        self.registry = Registry()
        self._reactor = reactor
        self._contexts = contexts
        self._anchors: frozenset[bytes] = frozenset()
        dial_destination = dialer(reactor, contexts, bundle, settings.destination_svc_name)
        self.discovery = Destination(
            control_client(
                settings.destination_svc_addr, settings.destination_svc_name, dial_destination, self.registry, log
            ),
            namespace=settings.pod_namespace,
            pod=settings.pod_name,
            node=settings.node_name,
            log=log,
        )
        ports = own_ports(settings)
        self.destinations = Destinations(reactor, contexts, settings, self.registry, log, self.discovery)
        self.outbound = Outbound(reactor, self.destinations, settings, self.registry, log, ports)
        self.inbound = Inbound(reactor, contexts, settings, self.registry, log, ports)
        limit = descriptors.raise_limit()
        for acceptor in (self.inbound, self.outbound):
            acceptor.most = descriptors.share(limit, settings.max_connections)
        self.access_log = AccessLog(reactor, settings.access_log) if settings.access_log else None
        self.inbound.access_log = self.access_log

    @property
    def is_ready(self) -> bool:
        """There is nothing to wait for but the certificate."""
        return True

    async def wait_ready(self) -> None:
        """Until connections may be accepted."""

    def load(self, chain_der: list[bytes], key_der: bytes, bundle_pem: bytes) -> None:
        """A new certificate, as identity has it; raises ValueError and changes nothing."""
        self._contexts.load(chain_der, key_der, bundle_pem)
        anchors = frozenset(filter(None, map(bytes.strip, bundle_pem.split(PEM_END))))
        if self._anchors - anchors:
            # Who was let in by an anchor that is trusted no more proves itself anew, or is gone.
            self.log.info("a trust anchor was dropped; pooled connections are made anew")
            self._reactor.end_all()
        self._anchors = anchors

    def families(self) -> Iterator[Family]:
        """Everything counted."""
        return self.registry.families()

    async def refresh(self) -> None:
        """Called before a scrape: what is counted is always new here."""

    def processes(self) -> None:
        """The process ids of others that belong to the proxy: it is this one alone."""

    async def run(self) -> None:
        """Forget what is idle, and hold no more memory than is in use, for ever."""
        seen = -1
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            if self._reactor.now_ns != seen:
                seen = self._reactor.now_ns
                trim_heap()
            self.registry.drop_idle(time.monotonic_ns(), int(self.settings.metrics_retain_idle * 1e9))
            # What is given up while the control plane is away would not be had back: first hear that it is there.
            if await self.discovery.answers():
                self.destinations.drop_idle(self.settings.discovery_idle_timeout)

    async def drain_inbound(self) -> bool:
        """Let what came from others end; false when the grace period was over first."""
        self.log.info("draining", inbound=len(self.inbound.connections), outbound=len(self.outbound.connections))
        return await self._drain("inbound", self.inbound)

    async def drain_outbound(self) -> bool:
        """The same for what the pod's own application has open."""
        return await self._drain("outbound", self.outbound)

    async def _drain(self, side: str, acceptor: Inbound | Outbound) -> bool:
        done = asyncio.Event()
        acceptor.connections.drain(done.set)
        try:
            await asyncio.wait_for(done.wait(), self.settings.shutdown_grace_period)
        except TimeoutError:
            self.log.warning("grace period over", **{side: len(acceptor.connections)})
            return False
        return True

    async def close(self) -> None:
        """Write down what is held back."""
        if self.access_log is not None:
            self.access_log.flush()


def own_ports(settings: Settings) -> set[int]:
    """Ports of the pod that are the proxy's own."""
    listened = (*settings.inbound_listen_addr, *settings.outbound_listen_addr, *settings.admin_listen_addr)
    return {address.port for address in listened} | {labels.TAP_PORT}


def control_client(address: Address, identity: str, dial: Dial, registry: Registry, log: Log) -> ControlClient:
    """A client of one service of the control plane, whose calls are counted."""
    series = registry.control_series(str(address), "" if address.is_loopback else identity)
    counting = partial(resolve, looked_up=lambda: registry.event("control_dns_resolutions_total", ()))
    return ControlClient(address, dial=dial, resolve=counting, log=log, series=series)
