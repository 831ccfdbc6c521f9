"""A sidecar process as the kit runs it: started as uid 2102, asked over its admin port, read by its log."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from prometheus_client.parser import text_string_to_metric_families

from proxy.api import labels
from tests.kit.netns import Namespace
from tests.kit.waiting import slowness

ROOT: Final = Path(__file__).parent.parent.parent
READY_SECONDS: Final = 20.0
INHERITED: Final = ("LD_PRELOAD", "PYTHONMALLOC", "ASAN_OPTIONS", "UBSAN_OPTIONS")
"""What a run under sanitizers (`tests/sanitize.py`) has every proxy keep."""
CRASHES: Final = {-number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)}


class Place(Protocol):
    """Where a proxy runs: a pod."""

    name: str
    folder: Path
    namespace: Namespace


class Failed(AssertionError):
    """A process of the mesh that did not start; carries its log."""


class Proxy:
    """One sidecar process, as uid 2102, in its pod's namespace."""

    def __init__(
        self, pod: Place, environ: Mapping[str, str], command: list[str] | None = None, tree: Path = ROOT
    ) -> None:
        """`tree` is the source tree whose proxy it is."""
        self.pod = pod
        self.tree = tree
        self.environ = dict(environ)
        self.log_path = pod.folder / "proxy.log"
        self.command = command or [*as_proxy_user(tree), sys.executable, "-m", "proxy"]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has logged."""
        return self.log_path.read_text(errors="replace")

    def start(self) -> None:
        """Start, without waiting."""
        base = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
        base |= {name: os.environ[name] for name in INHERITED if name in os.environ}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.pod.namespace.command(*self.command),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.tree, env={**base, **self.environ},
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Until /ready says so; raises Failed with the log when it does not."""
        deadline = time.monotonic() + READY_SECONDS * slowness()
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                if self.get("/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.03)
        code = None if self.process is None else self.process.poll()
        raise Failed(f"the proxy of {self.pod.name} is not ready (exit code {code})\n{self.log}")

    def get(self, path: str) -> "Answer":
        """Ask the admin port from the pod's own loopback."""
        with self.pod.namespace.connect(("127.0.0.1", labels.ADMIN_PORT), 5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
            return read_answer(connection)

    def metric(self, name: str, **wanted: str) -> float:
        """The sum of the samples of one name that carry these labels."""
        return sum(value for found, value in self.samples(name) if wanted.items() <= found.items())

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The samples of one name."""
        families = text_string_to_metric_families(self.get("/metrics").body.decode())
        return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def complaints(self) -> list[str]:
        """What no run may leave behind: a crash, or an exception in the log."""
        code = None if self.process is None else self.process.poll()
        found = [f"{self.pod.name}: killed by signal {-code}"] if code is not None and code in CRASHES else []
        marks = ("Traceback", "Exception ignored", "data path failed", "deadline failed")
        return found + [f"{self.pod.name}: {line}" for line in self.log.splitlines() if any(m in line for m in marks)]

    def stop(self, seconds: float = 10) -> int:
        """SIGTERM, and SIGKILL when that is not enough; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)


class Answer:
    """An HTTP response as read by `http.client`."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.headers}, {self.body[:100]!r})"


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    """Read one response."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    body = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def as_proxy_user(tree: Path = ROOT) -> list[str]:
    """uid 2102 without any right, but to read a source tree that lies in somebody's home."""
    uid = str(labels.PROXY_UID)
    rights = "-all,+dac_read_search" if not _readable_by_all(Path(sys.executable).resolve(), tree) else "-all"
    return [
        "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps", rights, "--ambient-caps", rights,
        "--bounding-set", rights, "--no-new-privs",
    ]  # fmt: skip


def _readable_by_all(path: Path, tree: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents, *tree.parents, tree))
