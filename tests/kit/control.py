"""A control plane without Kubernetes, as one process: identity and destination as they are, fed by the kit.

Two things are replaced. Tokens are the kit's own (`kit.<namespace>.<service account>.<pod>`) instead of an API
server's; facts about Services, slices and Pods come as JSON lines on stdin instead of watches. Each line is answered by
one on stdout.
"""

import argparse
import asyncio
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from components.destination import balancing, terms
from components.destination.index import Index
from components.destination.model import EndpointFacts, Mesh, PodFacts, ServiceFacts, SliceFacts
from components.destination.ports import EMPTY, parse_ports
from components.destination.publisher import Publisher
from components.destination.server import DestinationService
from components.destination.server import make_server as make_destination
from components.identity import authority
from components.identity.claims import Claims, TokenError
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.server import IdentityService, Settings
from components.identity.server import make_server as make_identity
from components.serving import configure_logging
from proxy.api import labels

DOMAIN = "cluster.local"


def make_token(namespace: str, account: str, pod: str) -> str:
    """What a pod of the kit shows to identity."""
    return f"kit.{namespace}.{account}.{pod}"


class KitValidator:
    """Stands where the TokenReview is asked for."""

    async def validate(self, token: bytes) -> Claims:
        """Read a token of the kit; anything else is refused as the API server would."""
        kit, _, rest = token.decode().strip().partition(".")
        parts = rest.split(".")
        if kit != "kit" or len(parts) != 3:
            raise TokenError("rejected", "not a token of the kit")
        return Claims(parts[1], parts[0], parts[2], parts[2])


class Facts:
    """What the cluster would have said, and what it said before."""

    def __init__(self, index: Index, publisher: Publisher) -> None:
        self.index = index
        self.publisher = publisher
        self.known: dict[tuple[str, str, str], Any] = {}

    def replace(self, kind: str, key: tuple[str, str], new: Any) -> None:
        """A new version of one object, or None for its end."""
        old = self.known.pop((kind, *key), None)
        if new is not None:
            self.known[(kind, *key)] = new
        if old is None and new is None:
            return
        self.publisher.mark(getattr(self.index, f"apply_{kind}")(old, new))

    def pod(self, given: dict[str, Any]) -> None:
        key = (given["namespace"], given["name"])
        if given.get("gone"):
            self.replace("pod", key, None)
            return
        opaque = given.get("opaque")
        facts = PodFacts(
            key=key, uid=given["name"], ips=tuple(given["ips"]), alive=True, leaving=False, host_network=False,
            identity=given["identity"], skipped=EMPTY, opaque=None if opaque is None else parse_ports(opaque),
            labels=tuple(sorted(given["labels"].items())),
        )  # fmt: skip
        self.replace("pod", key, facts)

    def service(self, given: dict[str, Any]) -> None:
        key = (given["namespace"], given["name"])
        opaque = given.get("opaque")
        facts = ServiceFacts(
            key, tuple(given["ips"]), ((given["port"], "main"),), None if opaque is None else parse_ports(opaque),
            balancing=balancing.parse(given["annotations"]), terms=terms.parse(given["annotations"]),
        )  # fmt: skip
        self.replace("service", key, facts)

    def endpoints(self, given: dict[str, Any]) -> None:
        """Which Pods stand behind a Service: name, address and port of each."""
        key = (given["namespace"], given["service"])
        slices: dict[tuple[int, int], list[EndpointFacts]] = {}
        for each in given["pods"]:
            pod = (each["namespace"], each["name"]) if each.get("name") else None
            facts = EndpointFacts(
                address=each["ip"], ready=True, serving=True, terminating=False, pod=pod,
                pod_uid=each.get("name") or "", zone="", node="kit",
            )  # fmt: skip
            slices.setdefault((6 if ":" in each["ip"] else 4, each["port"]), []).append(facts)
        wanted = {
            (key[0], f"{key[1]}-{port}-{family}"): (family, port, found) for (family, port), found in slices.items()
        }
        for kind, *slice_key in list(self.known):
            mine = kind == "slice" and self.known[(kind, slice_key[0], slice_key[1])].service == key
            if mine and (slice_key[0], slice_key[1]) not in wanted:
                self.replace("slice", (slice_key[0], slice_key[1]), None)
        for slice_key2, (family, port, found) in wanted.items():
            self.replace("slice", slice_key2, SliceFacts(slice_key2, key, family, (("main", port),), tuple(found)))


async def serve(options: argparse.Namespace) -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    issuers = IssuerFiles(options.folder / "issuer", options.folder / labels.BUNDLE_KEY)
    issuers.read(datetime.datetime.now(datetime.UTC))
    following = asyncio.create_task(issuers.run())
    lifetime = datetime.timedelta(seconds=options.leaf_seconds)
    limits = Limits(1000, 1000, 1000, 1000, time.monotonic())
    settings = Settings(labels.MESH_NAMESPACE, DOMAIN, lifetime)
    identity = make_identity(IdentityService(settings, issuers, KitValidator(), limits))  # type: ignore[arg-type]
    index = Index(DOMAIN, parse_ports(labels.DEFAULT_OPAQUE_PORTS))
    publisher = Publisher(index)
    synced = asyncio.Event()
    synced.set()
    destination = make_destination(DestinationService(publisher, synced, Mesh(labels.MESH_NAMESPACE, DOMAIN)))
    identity.add_insecure_port(f"127.0.0.1:{labels.IDENTITY_PORT}")
    destination.add_insecure_port(f"127.0.0.1:{labels.DESTINATION_PORT}")
    identity.add_insecure_port(f"{options.address}:{labels.IDENTITY_PORT}")
    destination.add_insecure_port(f"{options.address}:{labels.DESTINATION_PORT}")
    await identity.start()
    await destination.start()
    facts = Facts(index, publisher)
    reader = asyncio.StreamReader(limit=1 << 20)  # a Service of 1,000 endpoints is one line
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    assert sys.__stdout__ is not None
    print("{}", file=sys.__stdout__, flush=True)
    while line := await reader.readline():
        for kind, value in json.loads(line).items():
            getattr(facts, kind)(value)
        publisher.flush()
        print("{}", file=sys.__stdout__, flush=True)
    following.cancel()
    publisher.close()
    await destination.stop(0)
    await identity.stop(0)


def main() -> None:
    """Read the arguments and serve; logs go to stderr, since stdout carries answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--leaf-seconds", type=float, default=86400)
    parser.add_argument("--skew-seconds", type=float, default=authority.SKEW.total_seconds())
    options = parser.parse_args()
    authority.SKEW = datetime.timedelta(seconds=options.skew_seconds)  # type: ignore[misc]
    sys.stdout = sys.stderr
    configure_logging("error", "kit")
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
