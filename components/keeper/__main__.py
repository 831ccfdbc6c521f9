"""keeper: the composition root. `python3 -m components.keeper bootstrap`; every flag has a default."""

import argparse
import asyncio
import datetime
import sys

from components.keeper.bootstrap import Bootstrap
from components.kube.client import Kube
from components.serving import configure_logging, run
from proxy.api import labels


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="keeper", description="The mesh's trust material")
    parser.add_argument("task", choices=("bootstrap",), help="bootstrap: make what is absent, then end")
    parser.add_argument("--mesh-namespace", default=labels.MESH_NAMESPACE)
    parser.add_argument("--trust-namespace", default=labels.TRUST_NAMESPACE)
    parser.add_argument("--trust-domain", default="cluster.local")
    parser.add_argument("--further", default="", help="PEM of anchors to trust beside the mesh's own")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


async def bootstrap(options: argparse.Namespace) -> None:
    """Make what is absent."""
    kube = Kube.connect()
    try:
        made = Bootstrap(kube, options.mesh_namespace, options.trust_namespace, options.trust_domain)
        await made.run(options.further, datetime.datetime.now(datetime.UTC))
    finally:
        await kube.close()


def main() -> int:
    """Run; the exit code is 64 for a configuration that cannot be used."""
    options = parse_arguments(sys.argv[1:])
    configure_logging(options.log_level, "keeper")

    async def work(_: asyncio.Event) -> None:
        await bootstrap(options)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
