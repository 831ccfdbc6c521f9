"""What the tests of the role `proxy_host` share: its settings, a machine with a name server, and identity beside it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.ansible.kit import ROOT
from tests.ansible.roots import Root, converge, roots
from tests.kit import own_image

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
REFUSES: Final = "this machine did not join: proxy.joining: UNAUTHENTICATED: "
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


class Identity:
    """Identity on a machine's own loopback."""

    def __init__(self, machine: Root) -> None:
        inside = f"cd {ROOT} && exec {sys.executable} -m tests.kit.lone_identity"
        command = machine.command("sh", "-c", inside)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.bundle, self.token = self._read()

    def _read(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        # The log goes to standard output too.
        line = next(line for line in self.process.stdout if line.startswith("{"))
        said = json.loads(line)
        return said["bundle"], said["token"]

    def offer(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()[1]


def beside(identity: Identity, folder: Path) -> dict[str, Any]:
    """Settings by which a machine joins beside that identity; the image's archive is written into `folder`."""
    archive = folder / "images.tar"
    own_image.write(archive)
    return {
        **SETTINGS,
        "proxy_host_archive": str(archive),
        "proxy_host_trust_bundle": identity.bundle,
        "proxy_host_service_account": "machine",
        "proxy_host_identity_address": "127.0.0.1:8080",
        "proxy_host_destination_address": "127.0.0.1:8086",
        "proxy_host_dns": "resolv_conf",
    }


def undone(machine: Root, settings: dict[str, Any], words: str) -> None:
    """The machine does not join, is told why, and is what it was."""
    before = machine.state()
    done = converge([machine], "proxy_host", settings)
    assert done.returncode != 0
    assert words in done.text, done.text
    assert machine.state() == before
