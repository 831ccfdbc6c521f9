"""`python3 -m proxy.redirect.validate`: refuses to let a pod start whose connections are not redirected. It needs no
right.

Takes the arguments of `proxy.redirect`. It listens where the proxy will listen, connects to addresses that nobody has
(RFC 5737, RFC 3849), and must reach itself: as Linkerd's network validator, once for each IP version of the pod. A
plugin sets both directions in one transaction, so what holds of outgoing connections holds of incoming ones.

Exit codes: 0 redirected, 95 not redirected (Linkerd's), 64 an argument that cannot be used.
"""

import os
import secrets
import selectors
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from proxy.api import labels
from proxy.redirect import apply
from proxy.redirect.arguments import ArgumentsError, parser, redirection_from
from proxy.redirect.rules import Redirection
from proxy.settings import EXIT_BAD_SETTING

PROG: Final = "proxy.redirect.validate"
TARGETS: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses for documentation: without redirection nobody answers, and no stranger is asked."""
FIRST_PORT: Final = 20001
"""Linkerd's; the first from here on that the pod does not leave out of redirection is dialled."""
PAUSE: Final = 0.2
"""Seconds between two tries."""
TOKEN_BYTES: Final = 16
HINT: Final = (
    "The CNI plugin of the mesh has not set this pod's rules. Run the Ansible role tulle.mesh.cni on node {node}: it "
    "installs the plugin, and sets the rules of pods that wait for them; this container is then tried again by itself"
)


def port_to_dial(redirection: Redirection) -> int:
    """A port that is redirected."""
    skipped = redirection.outbound_skip.ranges
    found = (port for port in range(FIRST_PORT, 65536) if not any(low <= port <= high for low, high in skipped))
    return next(found, FIRST_PORT)


def families(pod_ips: str) -> tuple[int, ...]:
    """The IP versions of a pod's addresses, as `status.podIPs` lists them."""
    return tuple(sorted({6 if ":" in address else 4 for address in pod_ips.split(",") if address.strip()}))


class Listener:
    """Stands where the proxy will, and tells whoever comes a secret."""

    def __init__(self, port: int, version: int) -> None:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self.token = secrets.token_bytes(TOKEN_BYTES)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.setblocking(False)
        # REDIRECT leads what the pod itself sends to its loopback address.
        self.socket.bind(("::1" if version == 6 else "127.0.0.1", port))
        self.socket.listen()

    def close(self) -> None:
        self.socket.close()


def reached(listener: Listener, version: int, port: int, seconds: float) -> str:
    """Dial the target once: empty if the listener answered, else what happened instead."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.setblocking(False)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(client, selectors.EVENT_READ)
        selector.register(listener.socket, selectors.EVENT_READ)
        try:
            client.connect((TARGETS[version], port))
        except BlockingIOError:
            pass
        except OSError as error:
            return error.strerror or str(error)
        heard = b""
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is listener.socket:
                    served, _ = listener.socket.accept()
                    with served:
                        served.sendall(listener.token)
                    continue
                try:
                    piece = client.recv(TOKEN_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    return error.strerror or str(error)
                heard += piece
                if heard == listener.token:
                    return ""
                if not piece:
                    return "someone else answered"
    return f"nobody answered within {seconds:g} s"


def validate(redirection: Redirection, versions: tuple[int, ...], seconds: float) -> str:
    """Try until every IP version is redirected or time is up; in words what is not."""
    port = port_to_dial(redirection)
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        listeners = {}
        for version in versions:
            listeners[version] = Listener(redirection.outbound_port, version)
            stack.callback(listeners[version].close)
        while True:
            left = max(end - time.monotonic(), PAUSE)
            # Half of what is left: one packet that is lost must not use up the time for all tries.
            failures = {each: reached(listeners[each], each, port, max(left / 2, PAUSE)) for each in versions}
            wrong = {version: words for version, words in failures.items() if words}
            if not wrong:
                return ""
            if time.monotonic() + PAUSE >= end:
                return "; ".join(
                    f"IPv{version} is not redirected (to {TARGETS[version]} port {port}: {words})"
                    for version, words in wrong.items()
                )
            time.sleep(PAUSE)


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Validate, and say what came of it."""
    known = parser(PROG, "Refuse to let a pod start whose connections are not redirected.")
    known.add_argument("--timeout", default="10", help="seconds until it gives up")
    try:
        options = known.parse_args(arguments)
        redirection = redirection_from(options)
        seconds = _seconds(options.timeout)
    except ArgumentsError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_SETTING
    versions = families(environ.get("POD_IPS", "")) or apply.versions()
    try:
        wrong = validate(redirection, versions, seconds)
    except OSError as error:
        wrong = f"port {redirection.outbound_port}: {error.strerror}"
    if wrong:
        hint = HINT.format(node=environ.get("NODE_NAME") or "of this pod")
        print(f"{PROG}: {wrong}. {hint}.", file=sys.stderr)
        return labels.EXIT_NOT_REDIRECTED
    print(f"redirected to port {redirection.outbound_port}: {', '.join(f'IPv{version}' for version in versions)}")
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ArgumentsError(f"--timeout={text}: write seconds, more than 0 and at most 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
