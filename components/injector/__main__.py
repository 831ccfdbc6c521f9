"""injector: the composition root. `python3 -m components.injector`; every flag has a default."""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from components.injector.bundle import TrustBundle
from components.injector.certs import SECRET, WebhookCertificates, server_context, webhook_reflector
from components.injector.configuration import ConfigFile
from components.injector.namespaces import Namespaces
from components.injector.owners import OwnerEvents
from components.injector.webhook import ServerVersion, Webhook
from components.kube.client import Kube, KubeError
from components.kube.events import Recorder
from components.kube.leader import Leader
from components.revision.names import named
from components.serving import AdminServer, StartupError, configure_logging, parse_address, run, until
from proxy.api import labels

CONFIGURATION = "tulle-injector"
"""The mesh's own webhook configuration. To it belong the copies of the trust bundle, whichever injector made them: they
outlive a revision.
"""
LINGER_SECONDS = 3.0
"""After SIGTERM the webhook is answered for this long, until no API server sends here any more: a refusal would be a
lost pod.
"""
VERSION_SECONDS = 300.0


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="injector", description="Adds the mesh's proxy to pods")
    parser.add_argument("--mesh-namespace", default=labels.MESH_NAMESPACE)
    parser.add_argument("--config", type=Path, default=Path("/var/run/tulle/injector/config.json"))
    parser.add_argument("--listen", default=f"0.0.0.0:{labels.INJECTOR_PORT}")
    parser.add_argument("--admin", default=f"0.0.0.0:{labels.CONTROLLER_ADMIN_PORT}")
    parser.add_argument(
        "--name", default=os.environ.get("HOSTNAME") or socket.gethostname(), help="who we are in the lease"
    )
    parser.add_argument(
        "--webhook-configurations", default=CONFIGURATION, help="whose caBundle is written; the stack declares the rest"
    )
    parser.add_argument("--revision", default="", help="of which control plane this is, if not of the mesh's own")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


def webhook_names(mesh_namespace: str, cluster_domain: str, revision: str = "") -> tuple[str, ...]:
    """What the API server may call the webhook."""
    service = f"{named('injector', revision)}.{mesh_namespace}.svc"
    return (service, f"{service}.{cluster_domain}")


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Put the parts together and run them until told to stop."""
    config = ConfigFile(options.config)
    kube = Kube.connect()
    context = server_context()
    namespaces = Namespaces(kube, lambda: config.current.exempt_namespaces)
    names = webhook_names(options.mesh_namespace, config.current.cluster_domain, options.revision)
    configurations = tuple(filter(None, options.webhook_configurations.split(",")))
    secret = named(SECRET, options.revision)
    certificates = WebhookCertificates(kube, options.mesh_namespace, names, configurations, context, secret)
    owner = webhook_reflector(kube, CONFIGURATION, lambda _, __: bundle.wake())
    bundle = TrustBundle(
        kube,
        options.mesh_namespace,
        namespaces,
        lambda: next(((n, o.metadata.uid) for n, o in owner.objects.items()), None),
    )
    namespaces.on_change = bundle.wake
    recorder = Recorder(kube, "tulle-injector")
    owners = OwnerEvents(kube, recorder)
    version = ServerVersion()
    webhook = Webhook(config, namespaces, bundle, owners, version)

    async def lead() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(certificates.lead())
            group.create_task(bundle.lead())

    leader = Leader(kube, named("tulle-injector", options.revision), options.mesh_namespace, options.name, lead)
    waited_for = {
        "the webhook's certificate": certificates.loaded,
        "namespaces": namespaces.synced,
        "trust bundles": bundle.synced,
        "the API server's version": version.known,
    }

    def ready() -> str | None:
        missing = [what for what, event in waited_for.items() if not event.is_set()]
        return "shutting down" if stop.is_set() else ", ".join(missing) or None

    server = _Server(
        uvicorn.Config(
            webhook.app(),
            ssl_context_factory=lambda _, __: context,
            lifespan="off",
            ws="none",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=5,
        )
    )
    listener = _listen(options.listen)
    admin = AdminServer(options.admin, ready)
    await admin.start()
    structlog.get_logger().info("started", listen=options.listen, admin=options.admin)

    async def answer() -> None:
        # Without a certificate every handshake would fail; until then connections wait in the backlog.
        for event in waited_for.values():
            await event.wait()
        await server.serve(sockets=[listener])

    quitting = asyncio.Event()

    async def linger() -> None:
        await stop.wait()
        await asyncio.sleep(LINGER_SECONDS)
        server.should_exit = True
        quitting.set()

    tasks = (
        namespaces.run(),
        certificates.run(),
        owner.run(),
        bundle.run(),
        config.run(),
        recorder.run(),
        owners.run(),
        leader.run(),
        _watch_version(kube, version),
        linger(),
    )
    serving = asyncio.ensure_future(answer())
    try:
        await until(quitting, *tasks)
        if server.started:
            await serving
    finally:
        serving.cancel()
        await admin.close()
        await kube.close()


async def _watch_version(kube: Kube, version: ServerVersion) -> None:
    """Read the API server's version, and again now and then: it may be upgraded under us."""
    while True:
        try:
            version.set(await kube.version())
        except KubeError as error:
            structlog.get_logger().warning("version_unknown", error=str(error))
        await asyncio.sleep(VERSION_SECONDS if version.known.is_set() else 1.0)


def _listen(address: str) -> socket.socket:
    host, port = parse_address(address, "--listen")
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise StartupError(f"--listen {address}: {error.strerror}; choose another address") from error


def main() -> int:
    """Run; the exit code is 64 for a configuration that cannot be used."""
    options = parse_arguments(sys.argv[1:])
    configure_logging(options.log_level, "injector")
    return run(lambda stop: serve(options, stop))


if __name__ == "__main__":
    sys.exit(main())
