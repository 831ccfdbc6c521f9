"""`python3 -m proxy.joining`: a machine outside the cluster spends its join token, which it reads from standard input,
and keeps what it gets for the proxy to start with. The settings are the proxy's own.

Exit codes: 0 joined, 1 identity cannot be reached or the file cannot be written, 2 identity refuses, 64 a bad setting.
"""

import asyncio
import os
import sys
from typing import Final

import uvloop

from proxy import settings as settings_module
from proxy.control import keypair, messages
from proxy.control.client import ControlClient
from proxy.control.dialing import dialer
from proxy.control.identity import PATH
from proxy.control.machine import KeptError, Machine
from proxy.control.resolving import resolve
from proxy.control.trust import TrustBundle
from proxy.io.reactor import Reactor
from proxy.settings import Settings
from proxy.telemetry.log import Log
from proxy.tls.contexts import TLSContexts
from proxy.version import VERSION
from proxy.wire import grpc

EXIT_UNREACHABLE: Final = 1
EXIT_REFUSED: Final = 2
PATIENCE: Final = 20.0
"""Seconds for all tries together; the token has minutes, and whoever waits at a terminal has not."""
TRY: Final = 6.0
PAUSE: Final = 1.0
AGAIN: Final = (grpc.DEADLINE_EXCEEDED, grpc.UNAVAILABLE, grpc.ABORTED)
"""Answers that may be another one a moment later; with the same key, a token that was spent on it counts still."""


class JoinError(Exception):
    """Why there is no identity; `code` is what the process exits with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


async def join(settings: Settings, token: bytes, log: Log) -> None:
    """Ask until there is a certificate or a reason; raises JoinError."""
    identity = settings.identity.dns_name
    contexts = TLSContexts(identity)
    bundle = TrustBundle(settings.trust_bundle_file, log)
    bundle.look()
    if bundle.cell.value is None:
        raise JoinError(f"{settings.trust_bundle_file} holds no trust anchors", EXIT_UNREACHABLE)
    reactor = Reactor(asyncio.get_running_loop())
    dial = dialer(reactor, contexts, bundle, settings.identity_svc_name, may_be_anonymous=True)
    client = ControlClient(settings.identity_svc_addr, dial=dial, resolve=resolve, log=log)
    try:
        pair = await keypair.generate(identity)
        request = messages.certify_request(
            identity, token, pair.request, bundle.cell.value.sha256, VERSION, settings.external_workload
        )
        certificate = messages.certificate(await _asked(client, request, settings))
        contexts.load(list(certificate.chain), pair.key, bundle.cell.value.pem)
        Machine(settings.external_workload, settings.identity_file).keep(pair, certificate)
    except (keypair.KeyGenerationError, OSError, ValueError) as error:
        raise JoinError(str(error), EXIT_UNREACHABLE) from error
    finally:
        await client.close()


async def _asked(client: ControlClient, request: bytes, settings: Settings) -> bytes:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            return await client.unary(PATH, request, TRY)
        except grpc.CallError as error:
            if error.status.code not in AGAIN:
                raise JoinError(str(error), EXIT_REFUSED) from error
            if loop.time() + PAUSE > deadline:
                words = f"identity at {settings.identity_svc_addr} cannot be asked from here: {error}"
                raise JoinError(words, EXIT_UNREACHABLE) from error
        await asyncio.sleep(PAUSE)


def main() -> int:
    """Join once; with `--check`, only say whether there is an identity that is still valid."""
    try:
        settings = settings_module.read(os.environ)
        if not settings.external_workload:
            remedy = "name the ExternalWorkload that this machine is"
            raise settings_module.SettingError(settings_module.PREFIX + "EXTERNAL_WORKLOAD", "", remedy)
    except settings_module.SettingError as error:
        print(f"proxy.joining: {error}", file=sys.stderr)
        return settings_module.EXIT_BAD_SETTING
    if sys.argv[1:] == ["--check"]:
        return _checked(settings)
    token = sys.stdin.buffer.read(4096).strip()
    log = Log(settings.log, settings.log_format, write=sys.stderr.write)
    try:
        uvloop.run(join(settings, token, log))
    except JoinError as error:
        print(f"proxy.joining: {error}", file=sys.stderr)
        return error.code
    print(f"joined as {settings.identity.dns_name}")
    return 0


def _checked(settings: Settings) -> int:
    import time

    try:
        kept = Machine(settings.external_workload, settings.identity_file).read()
    except KeptError as error:
        print(f"proxy.joining: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    left = kept.certificate.valid_until - time.time()
    print(f"certificate valid for {left:.0f} s" if left > 0 else "the certificate has expired")
    return 0 if left > 0 else EXIT_UNREACHABLE


if __name__ == "__main__":
    sys.exit(main())
