"""`python3 -m proxy.wait_ready`: holds an application back until its proxy is ready. Standard library only, and
little of it.

A classic sidecar's postStart hook runs it. Exit codes: 0 ready, 64 bad argument, 69 (EX_UNAVAILABLE, as linkerd-
await) timeout.
"""

import socket
import sys
import time
from typing import Final

EXIT_BAD_ARGUMENT: Final = 64
EXIT_TIMEOUT: Final = 69
TRY_TIMEOUT: Final = 5.0
"""Seconds for one question."""
INTERVAL: Final = 0.1
"""Seconds between two: small beside a pod's start, so that waiting costs it nothing it would notice."""
_USAGE: Final = "usage: python3 -m proxy.wait_ready [--timeout SECONDS] [--port PORT]"


def is_ready(port: int, timeout: float) -> bool:
    """Whether `GET /ready` on loopback is answered with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
            start = b""
            while len(start) < 12:
                piece = connection.recv(4096)
                if not piece:
                    return False
                start += piece
    except OSError:
        return False
    return start.startswith(b"HTTP/1.") and start[9:12] == b"200"


def options_from(arguments: list[str]) -> tuple[float, int]:
    """Timeout in seconds and port; raises ValueError."""
    values = {"--timeout": "120", "--port": "4191"}
    if len(arguments) % 2:
        raise ValueError(f"{arguments[-1]} needs a value")
    for name, value in zip(arguments[::2], arguments[1::2], strict=True):
        if name not in values:
            raise ValueError(f"unknown argument {name}")
        values[name] = value
    try:
        timeout, port = float(values["--timeout"].removesuffix("s")), int(values["--port"])
    except ValueError as error:
        raise ValueError(f"{values}: write numbers") from error
    if not 0 <= timeout <= 86400 or not 0 < port < 65536:
        raise ValueError(f"{values}: out of range")
    return timeout, port


def main(arguments: list[str]) -> int:
    """Ask until ready or out of time."""
    try:
        timeout, port = options_from(arguments)
    except ValueError as error:
        print(f"proxy.wait_ready: {error}; {_USAGE}", file=sys.stderr)
        return EXIT_BAD_ARGUMENT
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if is_ready(port, max(0.05, min(TRY_TIMEOUT, left))):
            return 0
        if left <= INTERVAL:
            print(f"proxy.wait_ready: the proxy was not ready within {timeout:g} s", file=sys.stderr)
            return EXIT_TIMEOUT
        time.sleep(INTERVAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
