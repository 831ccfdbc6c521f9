"""identity: the composition root. `python3 -m components.identity`; every flag has a default."""

import argparse
import asyncio
import datetime
import sys
import time
from pathlib import Path

import structlog

from components.identity.authority import MIN_LIFETIME
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.machines import Machines
from components.identity.reporting import Reporting
from components.identity.server import (
    CLIENT_BURST,
    CLIENT_RATE,
    TOTAL_BURST,
    TOTAL_RATE,
    IdentityService,
    Settings,
    make_server,
)
from components.identity.validator import Validator
from components.kube.client import Kube
from components.serving import AdminServer, StartupError, bind, configure_logging, parse_duration, run, until
from proxy.api import labels, names

GRACE_SECONDS = 5.0
"""Requests under way at SIGTERM are answered within this time; each takes milliseconds."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="identity", description="Certificates for the mesh's workloads")
    parser.add_argument("--mesh-namespace", default=labels.MESH_NAMESPACE)
    parser.add_argument("--trust-domain", default="cluster.local")
    parser.add_argument("--issuer-dir", type=Path, default=Path("/var/run/tulle/issuer"))
    parser.add_argument("--bundle", type=Path, default=Path(labels.BUNDLE_DIR) / labels.BUNDLE_KEY)
    parser.add_argument("--leaf-lifetime", default="24h", help="life of a leaf, at least 60s")
    parser.add_argument("--listen", default=f"0.0.0.0:{labels.IDENTITY_PORT}")
    parser.add_argument("--admin", default=f"0.0.0.0:{labels.CONTROLLER_ADMIN_PORT}")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace, stop: asyncio.Event) -> None:
    """Put the parts together and run them until told to stop."""
    lifetime = datetime.timedelta(milliseconds=parse_duration(options.leaf_lifetime, "--leaf-lifetime"))
    if lifetime < MIN_LIFETIME:
        raise StartupError(f"--leaf-lifetime {options.leaf_lifetime}: at least {MIN_LIFETIME.total_seconds():.0f}s")
    issuers = IssuerFiles(options.issuer_dir, options.bundle)
    kube = Kube.connect()
    validator = Validator(kube, names.token_audience(options.mesh_namespace, options.trust_domain))
    limits = Limits(CLIENT_RATE, CLIENT_BURST, TOTAL_RATE, TOTAL_BURST, time.monotonic())
    reporting = Reporting(kube, options.mesh_namespace)
    settings = Settings(options.mesh_namespace, options.trust_domain, lifetime)
    service = IdentityService(settings, issuers, validator, limits, reporting.heard, Machines(kube))
    server = make_server(service)
    bind(server, options.listen, "--listen")

    def ready() -> str | None:
        if stop.is_set():
            return "shutting down"
        return None if issuers.current is not None else issuers.problem

    admin = AdminServer(options.admin, ready)
    await admin.start()
    await server.start()
    structlog.get_logger().info("started", listen=options.listen, admin=options.admin)
    try:
        await until(stop, issuers.run(), reporting.run())
    finally:
        await server.stop(GRACE_SECONDS)
        await admin.close()
        await kube.close()


def main() -> int:
    """Run; the exit code is 64 for a configuration that cannot be used."""
    options = parse_arguments(sys.argv[1:])
    configure_logging(options.log_level, "identity")
    return run(lambda stop: serve(options, stop))


if __name__ == "__main__":
    sys.exit(main())
