"""A mesh without Kubernetes: pods are network namespaces with the real redirection, the real proxy and the real control
plane.

    with Mesh() as mesh:
        web = mesh.pod("web")
        mesh.service("web", 80, [web], target=8080)
        client = mesh.pod("client")
        with App(web, 8080):
            assert client.get(("10.96.0.1", 80)).status == 200

The test process itself is the application: its sockets are made inside a pod's namespace, and, as it is not uid 2102,
redirected.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from components.trust.authority import KeyPair, make_anchor, make_issuer
from proxy.api import labels, names
from tests.kit.control import DOMAIN, make_token
from tests.kit.netns import Namespace, Switch
from tests.kit.sidecar import ROOT, Answer, Failed, Proxy, as_proxy_user, read_answer

SERVICES: Final = "10.96"
SERVICES6: Final = "fd12:96::"


class Pod:
    """A network namespace that stands for a pod, meshed or not."""

    def __init__(self, mesh: "Mesh", name: str, namespace: str, account: str, is_meshed: bool) -> None:
        self.mesh = mesh
        self.name = name
        self.kube_namespace = namespace
        self.account = account
        self.folder = mesh.folder / f"{namespace}-{name}"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.namespace = Namespace(name)
        self.ip, self.ip6 = mesh.switch.plug(self.namespace)
        self.is_meshed = is_meshed
        self.proxy: Any = None
        self.identity = ""
        if is_meshed:
            self.identity = names.workload_identity(account, namespace, labels.MESH_NAMESPACE, DOMAIN).dns_name

    def __repr__(self) -> str:
        return f"Pod({self.kube_namespace}/{self.name} {self.ip} {self.identity or 'unmeshed'})"

    def environ(self) -> dict[str, str]:
        """What the injector would set."""
        control = self.mesh.control_address
        (self.folder / "token").write_text(make_token(self.kube_namespace, self.account, self.name))
        values = {
            "POD_IPS": f"{self.ip},{self.ip6}", "POD_NAME": self.name, "POD_NAMESPACE": self.kube_namespace,
            "NODE_NAME": "kit", "SERVICE_ACCOUNT": self.account,
            "IDENTITY_SVC_ADDR": f"{control}:{labels.IDENTITY_PORT}",
            "DESTINATION_SVC_ADDR": f"{control}:{labels.DESTINATION_PORT}",
            "IDENTITY_SVC_NAME": self.mesh.control_identity,
            "DESTINATION_SVC_NAME": self.mesh.control_identity,
            "TRUST_BUNDLE_FILE": str(self.mesh.folder / labels.BUNDLE_KEY),
            "TOKEN_FILE": str(self.folder / "token"),
        }  # fmt: skip
        return {f"TULLE_PROXY_{name}": value for name, value in values.items()}

    def redirect(self, *arguments: str, tree: Path = ROOT) -> None:
        """What the init container does."""
        subprocess.run(
            self.namespace.command(sys.executable, "-m", "proxy.redirect", *arguments),
            check=True, capture_output=True, text=True, cwd=tree, timeout=30,
        )  # fmt: skip

    def connect(self, address: tuple[str, int], seconds: float = 10) -> socket.socket:
        """A connection as the pod's application makes it."""
        return self.namespace.connect(address, seconds)

    def listen(self, port: int) -> socket.socket:
        """Where the pod's application listens."""
        return self.namespace.listen(("::", port))

    def get(self, address: tuple[str, int], path: str = "/", **headers: str) -> Answer:
        """One GET on a connection of its own."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        with self.connect(address) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {address[0]}\r\n{fields}\r\n".encode())
            return read_answer(connection)

    def close(self) -> None:
        """End the proxy and remove the namespace."""
        if self.proxy is not None:
            self.proxy.stop(2)
        self.namespace.close()


class Mesh:
    """A switch, a control plane and pods. Everything ends with the context."""

    def __init__(
        self, leaf_seconds: float = 86400, skew_seconds: float | None = None, control_tree: Path = ROOT
    ) -> None:
        """`control_tree` is the source tree that the control plane runs from, and the proxy in front of it."""
        self.leaf_seconds = leaf_seconds
        self.skew_seconds = skew_seconds
        self.control_tree = control_tree
        self.control_environ: dict[str, str] = {}
        """Variables of the control plane's process alone."""
        self.proxy_prefix: list[str] = []
        """Words before the command line of every proxy that is given none of its own."""
        self.settings: dict[str, str] = {}
        """Settings of every proxy, without their prefix, where it is given none of its own."""
        self.folder = Path(tempfile.mkdtemp(prefix="tulle-mesh-"))
        self.folder.chmod(0o755)
        self.pods: list[Pod] = []
        self.numbers: dict[str, int] = {}
        """What a Service's addresses end in."""
        self.control: subprocess.Popen[bytes] | None = None
        self.control_address = ""
        self.control_identity = names.workload_identity(
            "identity", labels.MESH_NAMESPACE, labels.MESH_NAMESPACE, DOMAIN
        ).dns_name
        self.facts: dict[str, dict[str, Any]] = {}
        now = datetime.now(UTC)
        self.anchor = make_anchor(labels.MESH_NAMESPACE, DOMAIN, now)
        self.issuer = make_issuer(self.anchor, labels.MESH_NAMESPACE, DOMAIN, now)
        self.switch = Switch()

    def __enter__(self) -> Self:
        try:
            self.write_trust(self.anchor, self.issuer)
            self.control_pod = Pod(self, "control", labels.MESH_NAMESPACE, "identity", True)
            self.pods.append(self.control_pod)
            self.start_control()
            self.control_address = "127.0.0.1"
            self.start_proxy(
                self.control_pod,
                {"INBOUND_DEFAULT_POLICY": "all-authenticated",
                 "INBOUND_TLS_UNAUTHENTICATED_PORTS": str(labels.IDENTITY_PORT)},
                tree=self.control_tree,
            )  # fmt: skip
            self.control_address = self.control_pod.ip
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        complaints = self.complaints()
        self.close()
        if kind is None and complaints:
            raise Failed("proxies complained:\n" + "\n".join(complaints))

    def complaints(self) -> list[str]:
        """Of all proxies."""
        return [line for pod in self.pods if pod.proxy is not None for line in pod.proxy.complaints()]

    def close(self) -> None:
        """Take everything down, whatever state it is in: each step is tried, however the one before it ended."""
        with contextlib.ExitStack() as steps:
            steps.callback(shutil.rmtree, self.folder, ignore_errors=True)
            steps.callback(self.switch.close)
            for pod in self.pods:
                steps.callback(pod.close)
            steps.callback(self.stop_control)

    def write_trust(self, anchor: KeyPair, issuer: KeyPair) -> None:
        """The bundle that proxies read, and the issuer that identity signs with."""
        (self.folder / "issuer").mkdir(exist_ok=True)
        (self.folder / "issuer" / "tls.crt").write_text(issuer.certificate)
        (self.folder / "issuer" / "tls.key").write_text(issuer.key)
        (self.folder / labels.BUNDLE_KEY).write_text(anchor.certificate)

    # The control plane

    def start_control(self) -> None:
        """Start both services, and tell them what they should know."""
        command = [
            sys.executable, "-m", "tests.kit.control", "--folder", str(self.folder),
            "--address", self.control_pod.ip,
            "--leaf-seconds", str(self.leaf_seconds),
            *(() if self.skew_seconds is None else ("--skew-seconds", str(self.skew_seconds))),
        ]  # fmt: skip
        with (self.folder / "control.log").open("ab") as log:
            self.control = subprocess.Popen(
                self.control_pod.namespace.command(*command),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self.control_tree,
                env={**os.environ, **self.control_environ},
            )  # fmt: skip
        self._answered()
        for fact in list(self.facts.values()):
            self._send(fact)

    def stop_control(self) -> None:
        """Kill both services at once, as a node that goes."""
        if self.control is not None:
            self.control.kill()
            self.control.wait()
            for pipe in (self.control.stdin, self.control.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self.control = None

    def tell(self, key: str, fact: dict[str, Any]) -> None:
        """Have discovery know something, now and after every restart."""
        self.facts[key] = fact
        if self.control is not None:
            self._send(fact)

    def _send(self, fact: dict[str, Any]) -> None:
        pipe: IO[bytes] | None = self.control.stdin if self.control is not None else None
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write(json.dumps(fact).encode() + b"\n")
            pipe.flush()
        self._answered()

    def _answered(self) -> None:
        assert self.control is not None
        assert self.control.stdout is not None
        if not self.control.stdout.readline():
            raise Failed(f"the control plane ended\n{(self.folder / 'control.log').read_text()}")

    # Pods and services

    def pod(
        self,
        name: str,
        namespace: str = "demo",
        *,
        account: str = "",
        meshed: bool = True,
        opaque: str | None = None,
        ready: bool = True,
        command: list[str] | None = None,
        redirect: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
        tree: Path = ROOT,
        **more: str,
    ) -> Pod:
        """A pod; `settings` and `more` are proxy settings without their prefix."""
        environ = {**(settings or {}), **more}
        pod = Pod(self, name, namespace, account or name, meshed)
        self.pods.append(pod)
        pod_labels = {"namespace": namespace, "pod": name, "serviceaccount": pod.account, "deployment": name}
        fact = {
            "namespace": namespace, "name": name, "ips": [pod.ip, pod.ip6], "identity": pod.identity, "opaque": opaque,
            "labels": pod_labels,
        }  # fmt: skip
        if opaque is not None:
            environ.setdefault("INBOUND_OPAQUE_PORTS", opaque)
        self.tell(f"pod {namespace}/{name}", {"pod": fact})
        if meshed:
            self.start_proxy(pod, environ, command=command, ready=ready, redirect=redirect, tree=tree)
        return pod

    def start_proxy(
        self,
        pod: Pod,
        environ: Mapping[str, str],
        *,
        command: list[str] | None = None,
        ready: bool = True,
        redirect: tuple[str, ...] = (),
        tree: Path = ROOT,
    ) -> None:
        """Redirect the pod and start its proxy, both as they are in a source tree."""
        pod.redirect(*redirect, tree=tree)
        own = {f"TULLE_PROXY_{key}": value for key, value in {**self.settings, **environ}.items()}
        if command is None and self.proxy_prefix:
            command = [*self.proxy_prefix, *as_proxy_user(), sys.executable, "-m", "proxy"]
        pod.proxy = Proxy(pod, {**pod.environ(), **own}, command, tree)
        pod.proxy.start()
        if ready:
            pod.proxy.wait_ready()

    def service(
        self,
        name: str,
        port: int,
        pods: list[Pod],
        *,
        target: int = 0,
        opaque: str | None = None,
        dual: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> tuple[str, int]:
        """A Service over pods of namespace demo, of both families if `dual`; returns its address."""
        key = f"service {name}"
        number = self.numbers.setdefault(name, len(self.numbers) + 1)
        ip = f"{SERVICES}.{number >> 8}.{number & 255}"
        ips = [ip, f"{SERVICES6}{number:x}"] if dual else [ip]
        fact = {"namespace": "demo", "name": name, "ips": ips, "port": port, "opaque": opaque}
        self.tell(key, {"service": {**fact, "annotations": dict(annotations or {})}})
        self.endpoints(name, pods, target or port)
        return ip, port

    def address6(self, name: str) -> str:
        """The other address of a Service of both families."""
        address: str = self.facts[f"service {name}"]["service"]["ips"][1]
        return address

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Give a Service these annotations and no others."""
        fact = self.facts[f"service {name}"]["service"]
        self.tell(f"service {name}", {"service": {**fact, "annotations": dict(annotations)}})

    def endpoints(self, name: str, pods: list[Pod], target: int, extra: tuple[tuple[str, int], ...] = ()) -> None:
        """Which pods stand behind a Service now; `extra` are addresses without a pod."""
        has_both = len(self.facts[f"service {name}"]["service"]["ips"]) > 1
        behind = [
            {"namespace": pod.kube_namespace, "name": pod.name, "ip": ip, "port": target}
            for pod in pods
            for ip in (pod.ip, pod.ip6)[: 1 + has_both]
        ] + [{"namespace": "demo", "name": "", "ip": ip, "port": port} for ip, port in extra]
        self.tell(f"endpoints {name}", {"endpoints": {"namespace": "demo", "service": name, "pods": behind}})

    def forget(self, pod: Pod) -> None:
        """The pod is gone from the cluster's books; its processes are the test's business."""
        gone = {"namespace": pod.kube_namespace, "name": pod.name, "gone": True}
        self.tell(f"pod {pod.kube_namespace}/{pod.name}", {"pod": gone})
