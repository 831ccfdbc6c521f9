"""The two sides of the comparison: a calling and a called pod each, with Tulle's proxies or with Envoy's. Does I/O."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from string import Template
from typing import Any, Final

from proxy.api import labels
from tests.bench.measure import PROXY_CORE
from tests.bench.origin import HTTP2_PORT, HTTP_PORT, TCP_PORT, serve
from tests.bench.root import Runtime
from tests.kit.netns import ip
from tests.kit.peers import Authority
from tests.kit.sidecar import Failed, as_proxy_user
from tests.kit.topology import Mesh, Pod

WIDE: Final = 1000
"""Endpoints behind the wide service."""
FEW: Final = 3
WIDE_NETWORKS: Final = {"tulle": "10.124.0", "envoy": "10.124.4"}
"""A /22 for each side: addresses that all lead to one pod, so that 1,000 endpoints need no 1,000 servers."""


@dataclass(slots=True)
class Side:
    """One side, ready to be loaded."""

    name: str
    caller: Pod
    called: Pod
    http: tuple[str, int]
    http2: tuple[str, int]
    tcp: tuple[str, int]
    few: tuple[str, int]
    """The application's HTTP/1 port behind three endpoints."""
    wide: tuple[str, int]
    """The same behind 1,000."""
    pids: tuple[int, ...]
    restart: Callable[[], tuple[int, ...]]


def widen(caller: Pod, called: Pod, name: str) -> list[str]:
    """Give a pod 1,003 addresses more, and its caller the way there; returns them."""
    network = WIDE_NETWORKS[name]
    ip("-n", called.namespace.name, "route", "add", "local", f"{network}.0/22", "dev", "lo")
    ip("-n", caller.namespace.name, "route", "add", f"{network}.0/22", "via", called.ip)
    return [str(address) for address in IPv4Network(f"{network}.0/22").hosts()][: WIDE + FEW]


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


def spread(mesh: Mesh, called: Pod, name: str, addresses: list[str]) -> tuple[str, int]:
    """A Service over many addresses of one pod, each known to discovery as a pod of its own."""
    service = mesh.service(f"tulle-{name}", 80, [], target=HTTP_PORT)
    behind = []
    for number, address in enumerate(addresses):
        pod = f"{name}-{number}"
        fact = {
            "namespace": "demo", "name": pod, "ips": [address], "identity": called.identity, "opaque": None,
            "labels": {"namespace": "demo", "pod": pod, "serviceaccount": called.account, "deployment": name},
        }  # fmt: skip
        mesh.tell(f"pod demo/{pod}", {"pod": fact})
        behind.append({"namespace": "demo", "name": pod, "ip": address, "port": HTTP_PORT})
    known = {"namespace": "demo", "service": f"tulle-{name}", "pods": behind}
    mesh.tell(f"endpoints tulle-{name}", {"endpoints": known})
    return service


def tulle(mesh: Mesh, runtime: Runtime, children: list[subprocess.Popen[bytes]]) -> Side:
    """Two pods with our proxies, configured by our control plane."""

    def pod(name: str, ready: bool = True) -> Pod:
        return mesh.pod(
            name,
            ready=ready,
            command=runtime.command(mesh.folder),
            opaque=str(TCP_PORT),
            settings=settings_for(runtime, mesh, "demo", name),
        )

    caller = pod("tulle-client")
    called = pod("tulle-web", ready=False)
    addresses = widen(caller, called, "tulle")
    # The proxy takes only what was sent to an address of its pod.
    called.proxy.environ["TULLE_PROXY_POD_IPS"] = ",".join((called.ip, called.ip6, *addresses))
    called.proxy.stop(5)
    called.proxy.start()
    called.proxy.wait_ready()
    serve(called, children)
    http = mesh.service("tulle-web", 80, [called], target=HTTP_PORT)
    http2 = mesh.service("tulle-web2", 80, [called], target=HTTP2_PORT)
    tcp = mesh.service("tulle-sink", TCP_PORT, [called], target=TCP_PORT, opaque=str(TCP_PORT))
    few, wide = (
        spread(mesh, called, name, chosen) for name, chosen in (("few", addresses[WIDE:]), ("wide", addresses[:WIDE]))
    )

    def pids() -> tuple[int, int]:
        pin(caller.proxy.pid, called.proxy.pid)
        return caller.proxy.pid, called.proxy.pid

    def restart() -> tuple[int, int]:
        # Both are down before one comes up: what the old caller has in hand would be dialled at the new called one.
        for each in (caller, called):
            each.proxy.stop(5)
        for each in (called, caller):
            each.proxy.start()
            each.proxy.wait_ready()
        return pids()

    return Side("tulle", caller, called, http, http2, tcp, few, wide, pids(), restart)


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


def endpoints(addresses: list[str]) -> str:
    """Endpoints as Envoy's configuration lists them."""
    one = "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}"
    return ", ".join(one.format(address, HTTP_PORT) for address in addresses)


def envoy(mesh: Mesh, children: list[subprocess.Popen[bytes]], envoys: list[Envoy]) -> Side:
    """Two pods with Envoy, the same redirection, and certificates of the same issuer."""
    caller, called = mesh.pod("envoy-client", meshed=False), mesh.pod("envoy-web", meshed=False)
    addresses = widen(caller, called, "envoy")
    serve(called, children)
    authority = Authority(mesh.issuer.certificate.encode(), mesh.issuer.key.encode())
    name = "{}.demo.serviceaccount.identity.tulle.cluster.local"
    values = {
        "http_vip": "10.96.1.1", "tcp_vip": "10.96.1.2", "http2_vip": "10.96.1.3", "few_vip": "10.96.1.4",
        "wide_vip": "10.96.1.5", "server": called.ip, "server_name": name.format("web"),
        "few_endpoints": endpoints(addresses[WIDE:]), "wide_endpoints": endpoints(addresses[:WIDE]),
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

    http, http2, few, wide = (("10.96.1." + last, 80) for last in ("1", "3", "4", "5"))
    return Side("envoy", caller, called, http, http2, ("10.96.1.2", TCP_PORT), few, wide, start(), restart)


def direct(mesh: Mesh, children: list[subprocess.Popen[bytes]]) -> Side:
    """Two pods without any proxy: what the load and the application cost by themselves."""
    caller, called = mesh.pod("direct-client", meshed=False), mesh.pod("direct-web", meshed=False)
    serve(called, children)
    http, http2, tcp = ((called.ip, port) for port in (HTTP_PORT, HTTP2_PORT, TCP_PORT))
    return Side("direct", caller, called, http, http2, tcp, http, http, (), lambda: ())
