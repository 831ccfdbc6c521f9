"""Names to addresses through the system's resolver, off the loop's thread. I/O; says nothing of which address to
prefer.
"""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from proxy.control.client import ResolutionError
from proxy.settings import Address

TIMEOUT: Final = 3.0
"""Seconds: less than the resolver's own five, so that one lost datagram does not decide when discovery is back."""
_FINAL: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


def absolute(host: str) -> str:
    """A cluster name made absolute, so that the five search domains of a pod are not asked first."""
    return host if host.endswith(".") or ".svc." not in host else f"{host}."


async def resolve(host: str, port: int, looked_up: Callable[[], None] = lambda: None) -> list[Address]:
    """All addresses of `host`; an address stands for itself. `looked_up` is told of each question to a name server."""
    try:
        return [Address(str(ip_address(host)), port)]
    except ValueError:
        looked_up()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await loop.getaddrinfo(absolute(host), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ResolutionError(f"{host}: {error.strerror or error}", error.errno in _FINAL) from error
    except TimeoutError as error:
        raise ResolutionError(f"{host}: no answer within {TIMEOUT:g} s", False) from error
    return list(dict.fromkeys(Address(str(entry[4][0]), port) for entry in found))
