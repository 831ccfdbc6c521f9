"""A proxy over time: certificates change, the control plane goes and comes back, the pod ends."""

import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from components.trust.authority import make_anchor, make_issuer
from proxy.api import labels
from tests.kit.control import DOMAIN
from tests.kit.lines import App, Line, Load
from tests.kit.peers import ask
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import slowness, until

PORT = 8080


@pytest.fixture
def pair(own_mesh: Mesh) -> tuple[Pod, Pod]:
    """A caller and a called pod whose certificates live about a second."""
    short = {"IDENTITY_MIN_REFRESH": "200ms", "IDENTITY_MAX_REFRESH": "1s"}
    return own_mesh.pod("caller", settings=short), own_mesh.pod("called", settings=short)


@pytest.fixture
def own_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh of the test's own, which it may harm."""
    with Mesh() as made:
        yield made


def test_certificates_change_under_load_and_nothing_fails(own_mesh: Mesh, pair: tuple[Pod, Pod]) -> None:
    caller, called = pair
    address = own_mesh.service("called", 80, [called], target=PORT)
    with App(called, PORT), Line(own_mesh, caller, called) as line:
        kept = line.open()
        kept.send(b"\x00one")
        app = line.accept()
        app.exactly(4)
        with Load(caller, address) as load:
            until(
                "five certificates",
                lambda: all(
                    each.proxy.metric("control_identity_cert_refreshes_total", result="ok") >= 5 for each in pair
                ),
                20,
            )
        assert not load.failures, load.failures[:3]
        assert load.ok > 200
        kept.send(b"two")
        assert app.exactly(3) == b"two", "an old connection did not outlive its certificate"


def test_the_anchor_changes_live(own_mesh: Mesh, pair: tuple[Pod, Pod]) -> None:
    caller, called = pair
    address = own_mesh.service("called", 80, [called], target=PORT)
    now = datetime.now(UTC)
    anchor = make_anchor(labels.MESH_NAMESPACE, DOMAIN, now)
    bundle = own_mesh.folder / labels.BUNDLE_KEY
    outside = own_mesh.pod("outside", meshed=False)
    with App(called, PORT), Load(caller, address) as load:
        both = own_mesh.anchor.certificate + anchor.certificate
        bundle.write_text(both)

        def trusts_both() -> bool:
            return all(
                each.proxy.log.count("trust bundle loaded") >= 2 for each in (caller, called, own_mesh.control_pod)
            )

        until("the new bundle", trusts_both, 30)
        issuer = make_issuer(anchor, labels.MESH_NAMESPACE, DOMAIN, now)
        (own_mesh.folder / "issuer" / "tls.key").write_text(issuer.key)
        (own_mesh.folder / "issuer" / "tls.crt").write_text(issuer.certificate)
        signer = x509.load_pem_x509_certificate(issuer.certificate.encode())

        def shows_the_new_issuers_leaf(pod: Pod) -> bool:
            answer = outside.namespace.within(lambda: ask((pod.ip, PORT), pod.identity, None))
            if answer.peer is None:
                return False
            try:
                x509.load_der_x509_certificate(answer.peer).verify_directly_issued_by(signer)
            except InvalidSignature:
                return False
            return True

        until("leaves of the new issuer", lambda: all(map(shows_the_new_issuers_leaf, pair)), 30)
        begun = load.ok
        until("requests", lambda: load.ok > begun + 100, 10)
        bundle.write_text(anchor.certificate)
        until("the old anchor is gone", lambda: called.proxy.log.count("trust bundle loaded") >= 3, 30)
        begun = load.ok
        until("requests", lambda: load.ok > begun + 100, 10)
    assert not load.failures, load.failures[:3]


def test_without_its_control_plane_the_mesh_works_on(own_mesh: Mesh) -> None:
    caller, first, second = (own_mesh.pod(name) for name in ("caller", "first", "second"))
    address = own_mesh.service("called", 80, [first], target=PORT)
    with App(first, PORT), App(second, PORT), Load(caller, address) as load:
        until("requests", lambda: load.ok > 20, 5)
        own_mesh.stop_control()
        time.sleep(7)
        # New connections and idle ones alike: discovery of a known address is not given up while nobody can be asked.
        assert caller.get(address).body == b"first"
        begun = load.ok
        time.sleep(1)
        assert load.ok > begun + 50
        own_mesh.tell("endpoints called", {"endpoints": {
            "namespace": "demo", "service": "called",
            "pods": [{"namespace": "demo", "name": "second", "ip": second.ip, "port": PORT}],
        }})  # fmt: skip
        own_mesh.start_control()
        begun_at = time.monotonic()
        until("the new endpoint", lambda: load.bodies.get(b"second", 0) > 0, 10, 0.02)
        assert time.monotonic() - begun_at < 3.5 * slowness()
    assert not load.failures, load.failures[:3]


def test_a_proxy_that_ends_finishes_what_it_has(own_mesh: Mesh) -> None:
    caller, called = own_mesh.pod("caller"), own_mesh.pod("called")
    with Line(own_mesh, caller, called) as line:
        busy, idle = line.open(), line.open()
        idle.send("GET /idle HTTP/1.1\r\nHost: x\r\n\r\n")
        app = line.accept()
        app.head()
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        assert idle.answer().status == 200
        busy.send("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
        app = line.accept() if not app.held and app.is_silent(0.3) else app
        assert app.head()[0].startswith("GET /busy")
        called.proxy.signal(signal.SIGTERM)
        time.sleep(0.5)
        assert called.proxy.process.poll() is None, "it did not wait for the request in hand"
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast")
        answer = busy.answer()
        assert (answer.status, answer.body) == (200, b"last")
        assert called.proxy.process.wait(5) == 0
        assert "draining" in called.proxy.log


def test_the_grace_period_bounds_a_drain(own_mesh: Mesh) -> None:
    caller, called = own_mesh.pod("caller"), own_mesh.pod("called", SHUTDOWN_GRACE_PERIOD="1s")
    with Line(own_mesh, caller, called) as line:
        busy = line.open()
        busy.send("GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        line.accept().head()
        begun = time.monotonic()
        assert called.proxy.stop(5) == 0
        assert 0.9 < time.monotonic() - begun < 3 * slowness()
        assert "grace period over" in called.proxy.log


def test_endpoints_roll_under_load_and_nothing_fails(own_mesh: Mesh) -> None:
    caller = own_mesh.pod("caller")
    pods = [own_mesh.pod(f"v1-{number}") for number in range(2)]
    address = own_mesh.service("called", 80, pods, target=PORT)
    apps = [App(pod, PORT) for pod in pods]
    with Load(caller, address) as load:
        until("requests", lambda: load.ok > 50, 5)
        for number, old in enumerate(list(pods)):
            new = own_mesh.pod(f"v2-{number}")
            apps.append(App(new, PORT))
            pods.append(new)
            pods.remove(old)
            # As Kubernetes does it: out of the endpoints and SIGTERM at the same moment.
            old.proxy.signal(signal.SIGTERM)
            own_mesh.endpoints("called", pods, PORT)
            assert old.proxy.process.wait(10) == 0
        begun = load.ok
        until("requests to the new pods", lambda: load.ok > begun + 50, 5)
    for app in apps:
        app.close()
    assert not load.failures, load.failures[:3]


def test_a_killed_proxy_costs_only_what_it_held(own_mesh: Mesh) -> None:
    caller, first, second = (own_mesh.pod(name) for name in ("caller", "first", "second"))
    address = own_mesh.service("called", 80, [first, second], target=PORT)
    clients = 4
    with App(first, PORT), App(second, PORT), Load(caller, address, clients=clients) as load:
        until("requests", lambda: len(load.bodies) == 2, 5)
        first.proxy.signal(signal.SIGKILL)
        first.proxy.process.wait(5)
        time.sleep(1)
        first.proxy.start()
        first.proxy.wait_ready()
        seen = load.bodies[b"first"]
        until("the pod is used again", lambda: load.bodies[b"first"] > seen, 10)
    assert len(load.failures) <= clients, load.failures


def test_many_connections_at_once(own_mesh: Mesh) -> None:
    caller, called = own_mesh.pod("caller"), own_mesh.pod("called")
    address = own_mesh.service("called", 80, [called], target=PORT)
    failures: list[str] = []

    def burst() -> None:
        for _ in range(50):
            try:
                assert caller.get(address).status == 200
            except Exception as error:
                failures.append(repr(error))

    with App(called, PORT):
        threads = [threading.Thread(target=burst) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not failures, failures[:3]
    assert caller.proxy.metric("response_total", direction="outbound", status_code="200") == 400
