"""The composition root of the proxy: reads as the path of a connection, and nothing else wires things together.

    settings -> reactor -> trust bundle, identity -> traffic (discovery, outbound, inbound) -> admin -> serve -> drain
"""

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import uvloop

from proxy import descriptors, processors
from proxy import settings as settings_module
from proxy.admin.serve import AdminInbound
from proxy.admin.server import Admin
from proxy.control.dialing import dialer
from proxy.control.identity import Identity
from proxy.control.machine import KeptError, Machine
from proxy.control.trust import TrustBundle
from proxy.io.address import Address
from proxy.io.listen import Acceptor, Listener
from proxy.io.reactor import Reactor, trim_heap
from proxy.settings import Settings
from proxy.telemetry import process
from proxy.telemetry.exposition import Family
from proxy.telemetry.log import Log
from proxy.tls.contexts import SUITES, TLSContexts, offered_groups
from proxy.traffic import Traffic, control_client
from proxy.version import VERSION

if TYPE_CHECKING:
    from proxy.workers.accepting import Workers

ADMIN_CONNECTIONS = 1_000
"""Of Prometheus, the kubelet and whoever can reach the pod; a probe must not wait for a descriptor."""


class Proxy:
    """One sidecar: what it has once, however many processes carry its traffic. `run` returns when it has drained."""

    def __init__(self, settings: Settings, log: Log, workers: int = 1) -> None:
        self.settings = settings
        self.log = log
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)

        contexts = TLSContexts(settings.identity.dns_name)
        self.groups = offered_groups().decode()
        self.bundle = TrustBundle(settings.trust_bundle_file, log)
        self.traffic: Traffic | Workers
        if workers == 1:
            self.traffic = Traffic(settings, log, reactor, contexts, self.bundle)
        else:
            # Imported only here: a proxy of one process pays nothing for what it does not do.
            from proxy.workers import accepting

            self.traffic = accepting.Workers(settings, log, reactor, contexts, workers)
        dial_identity = dialer(reactor, contexts, self.bundle, settings.identity_svc_name, may_be_anonymous=True)
        self.identity = Identity(
            settings.identity.dns_name,
            client=control_client(
                settings.identity_svc_addr, settings.identity_svc_name, dial_identity, self.traffic.registry, log
            ),
            contexts=self.traffic,
            bundle=self.bundle,
            token_file=settings.token_file,
            log=log,
            min_refresh=settings.identity_min_refresh,
            max_refresh=settings.identity_max_refresh,
            version=VERSION,
            machine=Machine(settings.external_workload, settings.identity_file) if settings.external_workload else None,
        )
        self.admin = AdminInbound(
            reactor,
            contexts,
            settings,
            self.traffic.registry,
            log,
            Admin(
                log=log,
                is_ready=lambda: self.identity.is_ready and self.traffic.is_ready,
                refresh=self.traffic.refresh,
                families=self.families,
                shutdown=self.stop.set,
                environ=os.environ,
                metrics_identities=settings.metrics_identities,
                metrics_plaintext=settings.metrics_plaintext,
                shutdown_enabled=settings.shutdown_endpoint_enabled,
            ),
        )

        self.admin.most = descriptors.share(descriptors.raise_limit(), ADMIN_CONNECTIONS)

        def listen(
            addresses: tuple[settings_module.Address, ...], acceptor: Acceptor, peer_timeout: float = 0
        ) -> list[Listener]:
            return [Listener(reactor, Address(host, port), acceptor, peer_timeout) for host, port in addresses]

        self.outbound_listeners = listen(settings.outbound_listen_addr, self.traffic.outbound)
        self.inbound_listeners = listen(settings.inbound_listen_addr, self.traffic.inbound, settings.peer_timeout)
        self.admin_listeners = listen(settings.admin_listen_addr, self.admin, settings.peer_timeout)

    def families(self) -> list[Family]:
        """Everything /metrics shows."""
        identity = (Family(*family) for family in self.identity.families())
        own = process.families(VERSION, SUITES.decode(), self.groups, self.traffic.processes())
        return [*self.traffic.families(), *identity, *own]

    async def run(self) -> None:
        """Serve until SIGTERM, then drain. Application ports open with the first certificate; the backlog holds until
        then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        for listener in self.admin_listeners:
            listener.start()
        tasks = [asyncio.create_task(work) for work in (self.bundle.run(), self.identity.run(), self.traffic.run())]
        opening = asyncio.create_task(self.open_when_ready())
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        opening.cancel()
        await self.drain()
        await self.traffic.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def open_when_ready(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self.identity.wait_ready(), 15.0)
                break
            except TimeoutError:
                self.log.warning("waiting for a certificate", identity=self.settings.identity.dns_name)
        await self.traffic.wait_ready()
        for listener in (*self.outbound_listeners, *self.inbound_listeners):
            listener.start()
        trim_heap()
        self.log.info("ready", identity=self.settings.identity.dns_name)

    async def drain(self) -> None:
        """Finish what is in hand. Outbound goes on accepting meanwhile: an application that is ending may still
        call."""
        for listener in self.inbound_listeners:
            listener.close()
        if not await self.traffic.drain_inbound():
            return
        for listener in self.outbound_listeners:
            listener.close()
        await self.traffic.drain_outbound()


async def serve(settings: Settings, log: Log, workers: int = 1) -> None:
    """Run one proxy on the current loop."""
    await Proxy(settings, log, workers).run()


def main() -> int:
    """Entry point of `python3 -m proxy`: 64 for a bad setting, 1 when a listener or the trust bundle cannot be had."""
    try:
        settings = settings_module.read(os.environ)
        workers = processors.workers(settings, processors.allowed())
    except settings_module.SettingError as error:
        print(f"proxy: {error}", file=sys.stderr)
        return settings_module.EXIT_BAD_SETTING
    log = Log(settings.log, settings.log_format)
    for name in settings_module.unknown(os.environ):
        log.warning("unknown setting ignored", variable=name)
    try:
        uvloop.run(serve(settings, log, workers))
    except (OSError, KeptError, settings_module.SettingError) as error:
        log.error("cannot start", error=str(error))
        return 1
    return 0
