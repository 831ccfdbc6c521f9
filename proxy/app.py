"""The composition root of the proxy: reads as the path of a connection, and nothing else wires things together.

    settings -> reactor -> trust bundle, identity -> discovery -> outbound, inbound, admin -> serve -> drain
"""

import asyncio
import os
import signal
import sys
import time
from functools import partial

import uvloop

from proxy import descriptors
from proxy import settings as settings_module
from proxy.admin.serve import AdminInbound
from proxy.admin.server import Admin
from proxy.api import labels
from proxy.control.client import ControlClient, Dial
from proxy.control.destination import Destination
from proxy.control.dialing import dialer
from proxy.control.identity import Identity
from proxy.control.resolving import resolve
from proxy.control.trust import TrustBundle
from proxy.inbound.accept import Inbound
from proxy.io.address import Address
from proxy.io.listen import Acceptor, Listener
from proxy.io.reactor import Reactor
from proxy.outbound.accept import Outbound
from proxy.outbound.discover import Destinations
from proxy.settings import Settings
from proxy.telemetry import process
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.exposition import Family
from proxy.telemetry.log import Log
from proxy.telemetry.registry import Registry
from proxy.tls.contexts import SUITES, TLSContexts, offered_groups
from proxy.version import VERSION

ADMIN_CONNECTIONS = 1_000
"""Of Prometheus, the kubelet and whoever can reach the pod; a probe must not wait for a descriptor."""
HOUSEKEEPING_SECONDS = 10.0
"""How often idle series and idle destinations are looked for."""


class Proxy:
    """One sidecar. `run` returns when it has drained."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop)
        registry = Registry()
        self.registry = registry

        def service(address: settings_module.Address, identity: str, dial: Dial) -> ControlClient:
            series = registry.control_series(str(address), "" if address.is_loopback else identity)
            return ControlClient(address, dial=dial, resolve=counting, log=log, series=series)

        counting = partial(resolve, looked_up=lambda: registry.event("control_dns_resolutions_total", ()))
        contexts = TLSContexts(settings.identity.dns_name)
        self.groups = offered_groups().decode()
        self.bundle = TrustBundle(settings.trust_bundle_file, log)
        dial_identity = dialer(reactor, contexts, self.bundle, settings.identity_svc_name, may_be_anonymous=True)
        self.identity = Identity(
            settings.identity.dns_name,
            client=service(settings.identity_svc_addr, settings.identity_svc_name, dial_identity),
            contexts=contexts,
            bundle=self.bundle,
            token_file=settings.token_file,
            log=log,
            min_refresh=settings.identity_min_refresh,
            max_refresh=settings.identity_max_refresh,
            version=VERSION,
        )
        dial_destination = dialer(reactor, contexts, self.bundle, settings.destination_svc_name)
        self.discovery = Destination(
            service(settings.destination_svc_addr, settings.destination_svc_name, dial_destination),
            namespace=settings.pod_namespace,
            pod=settings.pod_name,
            node=settings.node_name,
            log=log,
        )

        own_ports = {
            address.port
            for address in (*settings.inbound_listen_addr, *settings.outbound_listen_addr, *settings.admin_listen_addr)
        } | {labels.TAP_PORT}
        self.destinations = Destinations(reactor, contexts, settings, registry, log, self.discovery)
        self.outbound = Outbound(reactor, self.destinations, settings, registry, log, own_ports)
        self.inbound = Inbound(reactor, contexts, settings, registry, log, own_ports)
        self.access_log = AccessLog(reactor, settings.access_log) if settings.access_log else None
        self.inbound.access_log = self.access_log
        self.admin = AdminInbound(
            reactor,
            contexts,
            settings,
            registry,
            log,
            Admin(
                log=log,
                is_ready=lambda: self.identity.is_ready,
                families=self.families,
                shutdown=self.stop.set,
                environ=os.environ,
                metrics_identities=settings.metrics_identities,
                metrics_plaintext=settings.metrics_plaintext,
                shutdown_enabled=settings.shutdown_endpoint_enabled,
            ),
        )

        limit = descriptors.raise_limit()
        for acceptor in (self.inbound, self.outbound):
            acceptor.most = descriptors.share(limit, settings.max_connections)
        self.admin.most = descriptors.share(limit, ADMIN_CONNECTIONS)

        def listen(
            addresses: tuple[settings_module.Address, ...], acceptor: Acceptor, peer_timeout: float = 0
        ) -> list[Listener]:
            return [Listener(reactor, Address(host, port), acceptor, peer_timeout) for host, port in addresses]

        self.outbound_listeners = listen(settings.outbound_listen_addr, self.outbound)
        self.inbound_listeners = listen(settings.inbound_listen_addr, self.inbound, settings.peer_timeout)
        self.admin_listeners = listen(settings.admin_listen_addr, self.admin, settings.peer_timeout)

    def families(self) -> list[Family]:
        """Everything /metrics shows."""
        identity = (Family(*family) for family in self.identity.families())
        own = process.families(VERSION, SUITES.decode(), self.groups)
        return [*self.registry.families(), *identity, *own]

    async def run(self) -> None:
        """Serve until SIGTERM, then drain. Application ports open with the first certificate; the backlog holds until
        then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        for listener in self.admin_listeners:
            listener.start()
        tasks = [asyncio.create_task(work) for work in (self.bundle.run(), self.identity.run(), self.housekeeping())]
        opening = asyncio.create_task(self.open_when_ready())
        stopped = asyncio.create_task(self.stop.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        opening.cancel()
        await self.drain()
        if self.access_log is not None:
            self.access_log.flush()
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
        for listener in (*self.outbound_listeners, *self.inbound_listeners):
            listener.start()
        self.log.info("ready", identity=self.settings.identity.dns_name)

    async def drain(self) -> None:
        """Finish what is in hand. Outbound goes on accepting meanwhile: an application that is ending may still
        call."""
        self.log.info("draining", inbound=len(self.inbound.connections), outbound=len(self.outbound.connections))
        for listener in self.inbound_listeners:
            listener.close()
        done = asyncio.Event()
        self.inbound.connections.drain(done.set)
        try:
            await asyncio.wait_for(done.wait(), self.settings.shutdown_grace_period)
        except TimeoutError:
            self.log.warning("grace period over", inbound=len(self.inbound.connections))
            return
        for listener in self.outbound_listeners:
            listener.close()
        done = asyncio.Event()
        self.outbound.connections.drain(done.set)
        try:
            await asyncio.wait_for(done.wait(), self.settings.shutdown_grace_period)
        except TimeoutError:
            self.log.warning("grace period over", outbound=len(self.outbound.connections))

    async def housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.registry.drop_idle(time.monotonic_ns(), int(self.settings.metrics_retain_idle * 1e9))
            # What is given up while the control plane is away would not be had back: first hear that it is there.
            if await self.discovery.answers():
                self.destinations.drop_idle(self.settings.discovery_idle_timeout)


async def serve(settings: Settings, log: Log) -> None:
    """Run one proxy on the current loop."""
    await Proxy(settings, log).run()


def main() -> int:
    """Entry point of `python3 -m proxy`: 64 for a bad setting, 1 when a listener or the trust bundle cannot be had."""
    try:
        settings = settings_module.read(os.environ)
    except settings_module.SettingError as error:
        print(f"proxy: {error}", file=sys.stderr)
        return settings_module.EXIT_BAD_SETTING
    log = Log(settings.log, settings.log_format)
    for name in settings_module.unknown(os.environ):
        log.warning("unknown setting ignored", variable=name)
    try:
        uvloop.run(serve(settings, log))
    except (OSError, settings_module.SettingError) as error:
        log.error("cannot start", error=str(error))
        return 1
    return 0
