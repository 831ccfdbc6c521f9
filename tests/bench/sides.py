"""The two sides of the comparison: a calling and a called pod each, with Tulle's proxies or with Envoy's. Does I/O."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final

from proxy.api import labels
from tests.bench.measure import LOAD_CORE, PROXY_CORE
from tests.bench.root import Runtime
from tests.kit.peers import Authority
from tests.kit.sidecar import Failed, as_proxy_user
from tests.kit.topology import Mesh, Pod

HTTP_PORT: Final = 8080
TCP_PORT: Final = 9000
BODY: Final = "x" * 100

NGINX: Final = """
daemon off; master_process off; pid $folder/nginx.pid; error_log $folder/nginx.log warn; worker_rlimit_nofile 20000;
events { worker_connections 8192; }
http {
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain;
    server { listen 0.0.0.0:8080 backlog=4096; location / { return 200 "$body"; } }
}
"""
SINK: Final = """
import socket, threading
listener = socket.create_server(("0.0.0.0", 9000), backlog=4096)
def drain(connection):
    buffer = bytearray(1 << 18)
    total = 0
    while count := connection.recv_into(buffer):
        total += count
    connection.sendall(str(total).encode())
    connection.close()
while True:
    threading.Thread(target=drain, args=(listener.accept()[0],), daemon=True).start()
"""


@dataclass(slots=True)
class Side:
    """One side, ready to be loaded."""

    name: str
    caller: Pod
    called: Pod
    http: tuple[str, int]
    tcp: tuple[str, int]
    pids: tuple[int, int]
    restart: Callable[[], tuple[int, int]]


def serve(pod: Pod, children: list[subprocess.Popen[bytes]]) -> None:
    """nginx and a sink for bytes in a pod, on the load's core."""
    settings = pod.folder / "nginx.conf"
    settings.write_text(Template(NGINX).substitute(folder=pod.folder, body=BODY))
    pinned = ["taskset", "-c", LOAD_CORE]
    for command in (["nginx", "-c", str(settings), "-p", str(pod.folder)], [sys.executable, "-c", SINK]):
        children.append(subprocess.Popen(pod.namespace.command(*pinned, *command), stdin=subprocess.DEVNULL))


def pin(*pids: int) -> None:
    """Put proxies with all their threads on their core."""
    for pid in pids:
        subprocess.run(["taskset", "-acp", PROXY_CORE, str(pid)], check=True, capture_output=True, timeout=10)


def settings_for(runtime: Runtime, mesh: Mesh, namespace: str, name: str) -> dict[str, str]:
    """Where the proxy of a pod finds its files."""
    folder = mesh.folder
    return {
        "TRUST_BUNDLE_FILE": runtime.path(folder, folder / labels.BUNDLE_KEY),
        "TOKEN_FILE": runtime.path(folder, folder / f"{namespace}-{name}" / "token"),
    }


def tulle(mesh: Mesh, runtime: Runtime, children: list[subprocess.Popen[bytes]]) -> Side:
    """Two pods with our proxies, configured by our control plane."""

    def pod(name: str) -> Pod:
        return mesh.pod(
            name,
            command=runtime.command(mesh.folder),
            opaque=str(TCP_PORT),
            settings=settings_for(runtime, mesh, "demo", name),
        )

    called, caller = pod("tulle-web"), pod("tulle-client")
    serve(called, children)
    http = mesh.service("tulle-web", 80, [called], target=HTTP_PORT)
    tcp = mesh.service("tulle-sink", TCP_PORT, [called], target=TCP_PORT, opaque=str(TCP_PORT))

    def pids() -> tuple[int, int]:
        pin(caller.proxy.pid, called.proxy.pid)
        return caller.proxy.pid, called.proxy.pid

    def restart() -> tuple[int, int]:
        for each in (called, caller):
            each.proxy.stop(5)
            each.proxy.start()
            each.proxy.wait_ready()
        return pids()

    return Side("tulle", caller, called, http, tcp, pids(), restart)


class Envoy:
    """One Envoy process in a pod's namespace."""

    def __init__(self, pod: Pod, configuration: Path) -> None:
        self.pod = pod
        self.configuration = configuration
        self.process: Any = None

    def start(self) -> int:
        """Start and wait until its admin port says that it is live."""
        binary = Path(sys.executable).parent / "envoy"
        command = [
            *as_proxy_user(), str(binary), "-c", str(self.configuration), "--concurrency", "1", "--disable-hot-restart",
            "--log-level", "warning",
        ]  # fmt: skip
        log = self.pod.folder / "envoy.log"
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.pod.namespace.command(*command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.pod.namespace.connect(("127.0.0.1", 9901), 2) as connection:
                    connection.sendall(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    if b"LIVE" in connection.recv(65536):
                        return int(self.process.pid)
            except OSError:
                pass
            time.sleep(0.1)
        raise Failed(f"Envoy does not start\n{log.read_text()}")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def envoy(mesh: Mesh, children: list[subprocess.Popen[bytes]], envoys: list[Envoy]) -> Side:
    """Two pods with Envoy, the same redirection, and certificates of the same issuer."""
    caller, called = mesh.pod("envoy-client", meshed=False), mesh.pod("envoy-web", meshed=False)
    serve(called, children)
    authority = Authority(mesh.issuer.certificate.encode(), mesh.issuer.key.encode())
    name = "{}.demo.serviceaccount.identity.tulle.cluster.local"
    values = {
        "http_vip": "10.96.1.1", "tcp_vip": "10.96.1.2", "server": called.ip, "server_name": name.format("web"),
    }  # fmt: skip
    pods = (("client", caller, "outbound.yaml"), ("server", called, "inbound.yaml"))
    for role, pod, template in pods:
        pod.redirect()
        leaf = authority.leaf(name.format("web" if role == "server" else role))
        for file, content in ((f"{role}.crt", leaf.chain), (f"{role}.key", leaf.key)):
            (pod.folder / file).write_bytes(content)
            (pod.folder / file).chmod(0o644)
        (pod.folder / "ca.crt").write_text(mesh.anchor.certificate)
        text = Template((Path(__file__).parent / "envoy" / template).read_text())
        (pod.folder / "envoy.yaml").write_text(text.substitute(values, folder=pod.folder))
        envoys.append(Envoy(pod, pod.folder / "envoy.yaml"))

    def start() -> tuple[int, int]:
        first, second = (each.start() for each in envoys)
        pin(first, second)
        return first, second

    def restart() -> tuple[int, int]:
        for each in envoys:
            each.stop()
        return start()

    return Side("envoy", caller, called, ("10.96.1.1", 80), ("10.96.1.2", TCP_PORT), start(), restart)
