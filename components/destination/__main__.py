"""destination: the composition root. `python3 -m components.destination`; every flag has a default."""

import argparse
import asyncio
import sys

import structlog

from components.destination.cluster import Cluster
from components.destination.index import Index
from components.destination.model import Mesh
from components.destination.ports import PortsError, parse_ports
from components.destination.publisher import Publisher
from components.destination.server import DestinationService, make_server
from components.kube.client import Kube
from components.kube.events import Recorder
from components.serving import AdminServer, StartupError, bind, configure_logging, run, until
from proxy.api import labels

GRACE_SECONDS = 2.0
"""Streams have ended by then: they are closed before the server is stopped."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="destination", description="Discovery for the mesh's proxies")
    parser.add_argument("--mesh-namespace", default=labels.MESH_NAMESPACE)
    parser.add_argument("--trust-domain", default="cluster.local")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--default-opaque-ports", default=labels.DEFAULT_OPAQUE_PORTS)
    parser.add_argument("--listen", default=f"0.0.0.0:{labels.DESTINATION_PORT}")
    parser.add_argument("--admin", default=f"0.0.0.0:{labels.CONTROLLER_ADMIN_PORT}")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Put the parts together and run them until told to stop."""
    try:
        default_opaque = parse_ports(options.default_opaque_ports)
    except PortsError as error:
        raise StartupError(f"--default-opaque-ports: {error}") from error
    index = Index(options.cluster_domain, default_opaque)
    publisher = Publisher(index)
    kube = Kube.connect()
    mesh = Mesh(options.mesh_namespace, options.trust_domain)
    recorder = Recorder(kube, "tulle-destination")
    cluster = Cluster(kube, mesh, index, publisher, recorder)
    server = make_server(DestinationService(publisher, cluster.synced, mesh))
    bind(server, options.listen, "--listen")
    admin = AdminServer(options.admin, lambda: "shutting down" if stop.is_set() else cluster.waiting_for())
    await admin.start()
    await server.start()
    structlog.get_logger().info("started", listen=options.listen, admin=options.admin)
    try:
        await until(stop, cluster.run(), publisher.audit(), recorder.run())
    finally:
        publisher.close()
        await server.stop(GRACE_SECONDS)
        await admin.close()
        await kube.close()


def main() -> int:
    """Run; the exit code is 64 for a configuration that cannot be used."""
    options = parse_arguments(sys.argv[1:])
    configure_logging(options.log_level, "destination")
    return run(lambda stop: serve(options, stop))


if __name__ == "__main__":
    sys.exit(main())
