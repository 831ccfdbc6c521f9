"""What the tests of the role `proxy_host` share: its settings, and a machine with a name server."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.ansible.roots import Root, roots

SETTINGS: Final[dict[str, Any]] = {
    "proxy_host_name": "vm",
    "proxy_host_namespace": "demo",
    "proxy_host_address": "192.0.2.10",
    "proxy_host_ports": [8080],
    "proxy_host_networks": ["10.0.0.0/8"],
    "proxy_host_archive": "/nowhere/images.tar",
    "proxy_host_trust_bundle": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----",
    "proxy_host_dns_server": "127.0.0.1",
    "proxy_host_dns": "none",
    "proxy_host_token": "never-to-be-seen",
}
LISTEN: Final = """
import socket, sys
listener = socket.create_server(("127.0.0.1", {port}))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def lone_machine() -> Iterator[Root]:
    """A machine that has loopback, and somebody who is taken for a name server."""
    with roots("vm") as (one,):
        one.run("ip link set lo up")
        with listening(one, 53):
            yield one


@contextmanager
def listening(machine: Root, port: int) -> Iterator[None]:
    """Somebody on a port of a machine."""
    command = machine.command(sys.executable, "-c", LISTEN.format(port=port))
    # It ends with its input: a signal would reach the program that entered the machine, and not what it started there.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.stdin.close()
