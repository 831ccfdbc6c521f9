"""The pod's private key and certificate request, made by a child process (`proxy.tls.keys`) and held in memory only."""

import asyncio
import sys
from dataclasses import dataclass, field
from typing import Final

TIMEOUT: Final = 60.0
"""Seconds: the child takes a quarter of one on an idle machine, and a node full of starting pods is not idle."""
MAX_PART: Final = 65536
"""Bytes: a P-256 key and its CSR are a few hundred."""


class KeyGenerationError(RuntimeError):
    """The child gave no key; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key and the request to certify it, both DER."""

    key: bytes = field(repr=False)
    request: bytes


def parts_from(data: bytes) -> list[bytes]:
    """The length-prefixed parts that the child wrote; raises KeyGenerationError if anything is left over or missing."""
    parts = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        part = data[at + 4 : at + 4 + length]
        if length > MAX_PART or len(part) != length or not length:
            raise KeyGenerationError("the key process wrote something that is no key")
        parts.append(part)
        at += 4 + length
    return parts


async def generate(identity: str) -> KeyPair:
    """A fresh key pair for an identity; raises KeyGenerationError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy.tls.keys",
        identity,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise KeyGenerationError(f"the key process took more than {TIMEOUT:g} s") from error
    if process.returncode:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        raise KeyGenerationError(
            f"the key process ended with {process.returncode}: {lines[-1] if lines else 'silently'}"
        )
    parts = parts_from(out)
    if len(parts) != 2:
        raise KeyGenerationError("the key process wrote something that is no key")
    return KeyPair(*parts)
