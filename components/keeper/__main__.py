"""keeper: the composition root. `python3 -m components.keeper`; every flag has a default."""

import argparse
import asyncio
import datetime
import sys

import structlog

from components.keeper.bootstrap import Bootstrap
from components.keeper.renewal import Renewal
from components.kube.client import Kube
from components.serving import AdminServer, StartupError, configure_logging, parse_duration, run, until
from proxy.api import labels

SHORTEST_ISSUER = datetime.timedelta(minutes=10)
"""A third of it must be time enough for several tries."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="keeper", description="The mesh's trust material")
    parser.add_argument(
        "task",
        nargs="?",
        choices=("keep", "bootstrap"),
        default="keep",
        help="keep: renew the issuer, for ever; bootstrap: make what is absent, then end",
    )
    parser.add_argument("--mesh-namespace", default=labels.MESH_NAMESPACE)
    parser.add_argument("--trust-namespace", default=labels.TRUST_NAMESPACE)
    parser.add_argument("--trust-domain", default="cluster.local")
    parser.add_argument("--issuer-lifetime", default="8760h", help="life of an issuer, at least 10m")
    parser.add_argument("--further", default="", help="PEM of anchors to trust beside the mesh's own")
    parser.add_argument("--admin", default=f"0.0.0.0:{labels.CONTROLLER_ADMIN_PORT}")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


async def bootstrap(options: argparse.Namespace, lifetime: datetime.timedelta) -> None:
    """Make what is absent."""
    kube = Kube.connect()
    try:
        made = Bootstrap(kube, options.mesh_namespace, options.trust_namespace, options.trust_domain, lifetime)
        await made.run(options.further, datetime.datetime.now(datetime.UTC))
    finally:
        await kube.close()


async def keep(options: argparse.Namespace, lifetime: datetime.timedelta, stop: asyncio.Event) -> None:
    """Look after the issuer until told to stop."""
    kube = Kube.connect()
    renewal = Renewal(
        kube,
        options.mesh_namespace,
        options.trust_namespace,
        options.trust_domain,
        lifetime,
    )
    admin = AdminServer(options.admin, renewal.waiting_for)
    await admin.start()
    structlog.get_logger().info("started", admin=options.admin)
    try:
        await until(stop, renewal.run())
    finally:
        await admin.close()
        await kube.close()


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """The task that was asked for."""
    lifetime = datetime.timedelta(milliseconds=parse_duration(options.issuer_lifetime, "--issuer-lifetime"))
    if lifetime < SHORTEST_ISSUER:
        raise StartupError(f"--issuer-lifetime {options.issuer_lifetime}: at least 10m")
    if options.task == "bootstrap":
        await bootstrap(options, lifetime)
    else:
        await keep(options, lifetime, stop)


def main() -> int:
    """Run; the exit code is 64 for a configuration that cannot be used."""
    options = parse_arguments(sys.argv[1:])
    configure_logging(options.log_level, "keeper")
    return run(lambda stop: serve(options, stop))


if __name__ == "__main__":
    sys.exit(main())
