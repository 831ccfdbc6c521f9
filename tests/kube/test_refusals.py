"""Who is refused: peers without a certificate, of another CA, with another identity than they should have. Each refusal
has its cause in a metric and in the log; and a peer that is all it should be is served, or the rest would prove
nothing.
"""

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
import yaml

from components.cli import exposition
from components.deploy.refs import Ref
from proxy.api import labels
from tests.kit import objects
from tests.kit.apps import Apps
from tests.kit.cluster import MESH, Kube
from tests.kit.peers import Answer, Authority, Leaf, ask
from tests.kit.waiting import until

REQUEST: Final = b"GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n"
ALPN: Final = ("tulle/http1",)
CAUSES: Final = (
    "inbound_tcp_errors_total",
    "inbound_tcp_authz_deny_total",
    "inbound_http_errors_total",
    "inbound_http_authz_deny_total",
)
OUTBOUND_CAUSES: Final = ("outbound_tcp_errors_total", "outbound_http_errors_total")
IDENTITY: Final = "{account}.{namespace}.serviceaccount.identity.tulle.cluster.local"


def name_of(namespace: str, account: str = "default") -> str:
    return IDENTITY.format(account=account, namespace=namespace)


def refusals(metrics: str, families: tuple[str, ...] = CAUSES) -> dict[tuple[str, str], float]:
    """Every refusal counted, by family and cause."""
    found: dict[tuple[str, str], float] = {}
    for family in families:
        for labels_, value in exposition.series(metrics, family):
            key = (family, labels_.get("error", ""))
            found[key] = found.get(key, 0) + value
    return found


@pytest.fixture(scope="module")
def issuer(kube: Kube) -> Authority:
    """The mesh's own issuer, which only an administrator of the cluster can read."""
    found = kube.get(Ref("v1", "Secret", MESH, labels.ISSUER_SECRET))
    assert found is not None
    data = {key: base64.b64decode(value) for key, value in found["data"].items()}
    return Authority(data["tls.crt"], data["tls.key"])


class Server:
    """A meshed server, asked by peers of any making."""

    def __init__(self, kube: Kube, namespace: str, pod: Any) -> None:
        self.kube, self.namespace = kube, namespace
        self.pod: str = pod["metadata"]["name"]
        self.address: tuple[str, int] = (pod["status"]["podIP"], 8080)

    def ask(self, leaf: Leaf | None, alpn: tuple[str, ...] = ALPN) -> Answer:
        return ask(self.address, name_of(self.namespace), leaf, REQUEST, alpn)

    def refuses(self, leaf: Leaf | None, cause: str) -> None:
        """Asking gets no answer, and the cause is counted and logged."""
        before = refusals(self.kube.metrics(self.namespace, self.pod))
        answer = self.ask(leaf)
        assert b"200 OK" not in answer.data, "the peer was served"
        assert self.pod.encode() not in answer.data, "the peer was served"

        def grown() -> list[tuple[str, str]]:
            now = refusals(self.kube.metrics(self.namespace, self.pod))
            return [key for key, value in now.items() if value > before.get(key, 0)]

        counted = until("the refusal counted", grown, 10)
        assert any(re.search(cause, error) for _, error in counted), f"{counted} does not say {cause!r}"
        until(
            "the refusal logged",
            lambda: re.search(rf"(?im)refused.*{cause}", self.kube.logs(self.namespace, self.pod, "linkerd-proxy")),
            10,
        )


@pytest.fixture
def server(kube: Kube, image: str, meshed: str) -> Server:
    (pod,) = Apps(kube, image).serve("api", meshed)
    return Server(kube, meshed, pod)


def test_a_peer_with_a_good_identity_is_served(server: Server, issuer: Authority) -> None:
    answer = server.ask(issuer.leaf(name_of(server.namespace, "someone")))
    assert answer.error == ""
    assert answer.data.startswith(b"HTTP/1.1 200 OK")
    assert server.pod.encode() in answer.data


def test_a_peer_without_a_certificate_is_refused(server: Server) -> None:
    server.refuses(None, "certificate")


def test_a_peer_of_another_ca_is_refused(server: Server) -> None:
    server.refuses(Authority.new("Someone else's CA").leaf(name_of(server.namespace)), "certificate|unknown|untrusted")


def test_a_peer_whose_certificate_has_expired_is_refused(server: Server, issuer: Authority) -> None:
    stale = issuer.leaf(name_of(server.namespace), timedelta(minutes=-1), timedelta(hours=1))
    server.refuses(stale, "certificate|expired")


@pytest.mark.parametrize(
    "name",
    [
        "evil.example.com",
        "default.test.serviceaccount.identity.tulle.other.domain",
        "default.test.serviceaccount.identity",
    ],
)
def test_a_certificate_of_the_mesh_ca_with_a_name_outside_the_mesh_is_refused(
    server: Server, issuer: Authority, name: str
) -> None:
    server.refuses(issuer.leaf(name), "certificate|identity")


def test_tls_for_another_name_is_passed_through_not_served_as_mesh(server: Server) -> None:
    """TLS with an SNI that is not ours is the application's own business: here it speaks no TLS, so nothing comes of
    it.
    """
    answer = ask(server.address, "shop.example.com", None, REQUEST)
    assert answer.peer is None
    assert b"200 OK" not in answer.data


IMPOSTOR: Final = """
import socket, ssl, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/cert/chain.pem", "/cert/key.pem")
context.set_alpn_protocols(["tulle/http1", "tulle/opaque"])
served = b"HTTP/1.1 200 OK\\r\\ncontent-length: 8\\r\\n\\r\\nimpostor"
def serve(plain):
    try:
        with context.wrap_socket(plain, server_side=True) as connection:
            while connection.recv(65536):
                connection.sendall(served)
    except OSError as error:
        print("ended:", error, flush=True)
listener = socket.create_server(("0.0.0.0", 8080), backlog=64)
print("impostor listens", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def impostor(namespace: str, image: str, leaf: Leaf) -> list[dict[str, Any]]:
    """A pod that claims to be meshed, and serves with a certificate of its own choosing."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cert", "namespace": namespace},
        "stringData": {"chain.pem": leaf.chain.decode(), "key.pem": leaf.key.decode()},
    }
    # Discovery believes the label only together with a container of the proxy's name.
    container = objects.container("linkerd-proxy", image, ["python3", "-c", IMPOSTOR], {})
    container["volumeMounts"] = [{"name": "cert", "mountPath": "/cert", "readOnly": True}]
    container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    pod = objects.pod(
        "impostor",
        namespace,
        [container],
        annotations={labels.INJECT: "disabled"},
        volumes=[{"name": "cert", "secret": {"secretName": "cert"}}],
    )
    pod["metadata"]["labels"][labels.CONTROL_PLANE_NAMESPACE] = MESH
    return [secret, pod, objects.service("impostor", namespace, 8080)]


@pytest.mark.parametrize(
    ("make", "served"),
    [
        (lambda issuer, namespace: issuer.leaf(name_of(namespace)), True),
        (lambda issuer, namespace: issuer.leaf(name_of(namespace, "someone-else")), False),
        (lambda issuer, namespace: Authority.new("Someone else's CA").leaf(name_of(namespace)), False),
    ],
    ids=["the expected identity", "another identity", "another CA"],
)
def test_a_server_with_another_identity_than_expected_is_not_called(
    kube: Kube,
    image: str,
    issuer: Authority,
    new_namespace: Callable[[bool], str],
    make: Callable[[Authority, str], Leaf],
    served: bool,
) -> None:
    namespace = new_namespace(True)
    kube.put(*impostor(namespace, image, make(issuer, namespace)))
    kube.ready_pods(namespace, "impostor")
    client = Apps(kube, image).client(namespace, f"http://impostor.{namespace}:8080/", rate=5)
    if served:
        client.wait_for(ok=5, seconds=20)
        return
    until("failures counted by the client", lambda: client.counts()["failed"] >= 5, 30)
    assert client.counts()["ok"] == 0
    metrics = kube.metrics(namespace, client.pod)
    assert any(value for _, value in exposition.series(metrics, "outbound_http_errors_total"))
    log = kube.logs(namespace, client.pod, "linkerd-proxy")
    assert re.search(
        r"(?i)identity|certificate",
        "\n".join(line for line in log.splitlines() if "impostor" in line or "8080" in line),
    )


def test_plaintext_is_denied_where_the_policy_demands_identity(kube: Kube, image: str, meshed: str, plain: str) -> None:
    apps = Apps(kube, image)
    policy = {"config.linkerd.io/default-inbound-policy": "all-authenticated"}
    (pod,) = apps.serve("api", meshed, annotations=policy)
    outside = apps.client(plain, f"http://api.{meshed}:8080/", rate=5)
    inside = apps.client(meshed, f"http://api.{meshed}:8080/", rate=5)
    inside.wait_for(ok=20)
    seen = until("refusals counted by the client", lambda: outside.counts()["failed"] >= 10 and outside.counts(), 30)
    assert seen["ok"] == 0
    assert all(cause.startswith("status 403") for cause in seen["causes"]), seen["causes"]
    metrics = kube.metrics(meshed, pod["metadata"]["name"])
    assert exposition.value(metrics, "inbound_http_authz_deny_total")
    assert inside.counts()["failed"] == 0


def test_a_token_of_another_audience_is_certified_nobody(kube: Kube, image: str, plain: str) -> None:
    """A pod of the user's own making, like an injected one but for whom its token is meant for."""
    # Without the wait for the proxy: the kubelet would not delete the pod before it is over.
    no_wait = {"config.linkerd.io/proxy-await": "disabled"}
    pod = objects.pod("vault-reader", plain, [objects.app_container("api", image, {})], no_wait)
    command = [sys.executable, "-m", "components.cli.main", "inject", "--manual", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(pod), capture_output=True, text=True, timeout=60)
    by_hand = yaml.safe_load(done.stdout)
    tokens = [
        source["serviceAccountToken"]
        for volume in by_hand["spec"]["volumes"]
        for source in (volume.get("projected") or {}).get("sources") or []
        if "serviceAccountToken" in source
    ]
    (token,) = (found for found in tokens if "identity" in found.get("audience", ""))
    token["audience"] = "vault"
    kube.put(by_hand)

    def refusal() -> str | None:
        (pod,) = kube.list("v1", "Pod", MESH, f"{labels.COMPONENT}=identity")
        lines = kube.logs(MESH, pod["metadata"]["name"], "identity").splitlines()
        return next((line for line in lines if f"default.{plain}." in line and "refused" in line), None)

    assert "is invalid for the target audiences" in until("the refusal in identity's log", refusal, 60)
    metrics = kube.metrics(plain, "vault-reader")
    assert not exposition.value(metrics, "control_identity_cert_expiration_timestamp_seconds")
    words = re.compile(r"(?m)^.*audience.*$")
    until("the proxy says why", lambda: words.search(kube.logs(plain, "vault-reader", "linkerd-proxy")), 30)
