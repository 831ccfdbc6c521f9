"""Identity by itself, on loopback, before an API server in memory with one ExternalWorkload: for machines that join
where there is no cluster. `python -m tests.kit.lone_identity` writes a line of JSON with the trust bundle and a join
token, and another token for each line that it reads.
"""

import asyncio
import datetime
import json
import sys
import tempfile
from pathlib import Path

from components.external import joining
from components.identity.issuer import IssuerFiles
from components.identity.limits import Limits
from components.identity.machines import Machines
from components.identity.server import IdentityService, Settings, make_server
from components.identity.validator import Validator
from tests.kit.authorities import authority
from tests.kit.facts import raw_external
from tests.kit.fake_api import FakeApi

PORT = 8080
DAY = datetime.timedelta(days=1)


def offer(api: FakeApi) -> str:
    """A new token for the one workload."""
    token = joining.new_token()
    found = api.get("externalworkloads", "vm", "demo")
    assert found is not None
    now = datetime.datetime.now(datetime.UTC)
    api.put("externalworkloads", joining.offered(found, token, now, datetime.timedelta(minutes=10)), "demo")
    return token


async def serve(folder: Path) -> None:
    """Until standard input ends."""
    now = datetime.datetime.now(datetime.UTC)
    root = authority("root", start=now - DAY, end=now + 9 * DAY)
    issuer = authority("issuer", root, start=now - DAY, end=now + 9 * DAY)
    for name, content in {"tls.crt": issuer.pem, "tls.key": issuer.key_pem, "bundle": root.pem}.items():
        (folder / name).write_bytes(content)
    issuers = IssuerFiles(folder, folder / "bundle")
    issuers.read(now)
    api = FakeApi()
    api.put("externalworkloads", raw_external("vm", ready=False), "demo")
    settings = Settings("tulle", "cluster.local", DAY)
    limits = Limits(1, 100, 100, 1000, 0.0)
    service = IdentityService(settings, issuers, Validator(api.kube(), ""), limits, None, Machines(api.kube()))
    server = make_server(service)
    assert server.add_insecure_port(f"127.0.0.1:{PORT}") == PORT
    await server.start()
    while True:
        print(json.dumps({"bundle": root.pem.decode(), "token": offer(api)}), flush=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            break
    await server.stop(None)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(serve(Path(name)))
