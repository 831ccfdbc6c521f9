"""The control plane goes and comes back under load; anchors change under running proxies. Nobody notices."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from components.trust.authority import KeyPair, make_anchor, make_issuer
from proxy.api import labels
from tests.kit.control import DOMAIN
from tests.kit.lines import App, Load
from tests.kit.topology import Mesh, Pod

PORT = 8080
FRESH = 3.0
"""Seconds from the return of discovery until a new endpoint is called."""


@pytest.fixture
def own_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh whose control plane may be killed; `mesh` is asked for only because it skips where none can be made."""
    with Mesh() as made:
        yield made


def until(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Wait, and return how long it took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def test_requests_go_on_without_the_control_plane_and_news_come_soon_after_its_return(own_mesh: Mesh) -> None:
    old, new, client = (own_mesh.pod(name, account="web") for name in ("web-old", "web-new", "client"))
    address = own_mesh.service("web", 80, [old], target=PORT)
    idle = own_mesh.service("idle", 80, [old], target=PORT)
    with App(old, PORT), App(new, PORT), Load(client, address, clients=2) as load:
        assert client.get(idle).body == b"web-old"
        until("first requests", lambda: load.ok > 50, 10)
        own_mesh.stop_control()
        # Longer than an unused destination is kept: while nothing can be asked anew, nothing is forgotten.
        time.sleep(8)
        assert client.get(idle).body == b"web-old"
        assert load.failures == []
        behind = {"namespace": "demo", "name": "web-new", "ip": new.ip, "port": PORT}
        own_mesh.facts["endpoints web"] = {"endpoints": {"namespace": "demo", "service": "web", "pods": [behind]}}
        own_mesh.start_control()
        took = until("the new endpoint", lambda: b"web-new" in load.bodies, 10)
        assert took < FRESH
        until("only the new endpoint", lambda: client.get(address).body == b"web-new", 5)
    assert load.failures == []
    assert load.ok > 500


def test_news_come_soon_after_a_control_plane_that_vanished_without_a_word(own_mesh: Mesh) -> None:
    """A node that dies sends no FIN: only the pings of the proxy can tell."""
    old, new, client = (own_mesh.pod(name, account="web") for name in ("web-old", "web-new", "client"))
    address = own_mesh.service("web", 80, [old], target=PORT)
    with App(old, PORT), App(new, PORT), Load(client, address, clients=1) as load:
        until("first requests", lambda: load.ok > 20, 10)
        own_mesh.control_pod.namespace.run("ip", "link", "set", "eth0", "down")
        until("the loss", lambda: "control connection lost" in client.proxy.log, 25)
        time.sleep(5)
        assert load.failures == []
        own_mesh.endpoints("web", [new], PORT)
        own_mesh.control_pod.namespace.run("ip", "link", "set", "eth0", "up")
        until("the new endpoint", lambda: b"web-new" in load.bodies, 10)
    assert load.failures == []
    assert all(pod.proxy.process.poll() is None for pod in (old, new, client))


def certified(pod: Pod) -> float:
    """How many certificates a pod has had."""
    return float(pod.proxy.metric("control_identity_cert_refreshes_total", result="ok"))


def bundle_of(mesh: Mesh, *anchors: KeyPair) -> None:
    """What the kubelet does when the ConfigMap changes: a new file in the place of the old."""
    new = mesh.folder / "new"
    new.write_text("".join(anchor.certificate for anchor in anchors))
    new.rename(mesh.folder / labels.BUNDLE_KEY)


def test_an_anchor_rotates_under_load_with_no_restart(own_mesh: Mesh) -> None:
    web, client = own_mesh.pod("web"), own_mesh.pod("client")
    address = own_mesh.service("web", 80, [web], target=PORT)
    now = datetime.now(UTC)
    anchor = make_anchor(labels.MESH_NAMESPACE, DOMAIN, now)
    issuer = make_issuer(anchor, labels.MESH_NAMESPACE, DOMAIN, now)
    pods = (web, client, own_mesh.control_pod)

    def all_certified_anew(why: str, change: Callable[[], None]) -> None:
        before = {pod: certified(pod) for pod in pods}
        change()
        until(why, lambda: all(certified(pod) > before[pod] for pod in pods), 30)

    def new_issuer() -> None:
        own_mesh.stop_control()
        own_mesh.write_trust(anchor, issuer)
        bundle_of(own_mesh, anchor, own_mesh.anchor)
        own_mesh.start_control()

    with App(web, PORT), Load(client, address, clients=2, pause=0.02) as load:
        until("first requests", lambda: load.ok > 20, 10)
        all_certified_anew("both anchors trusted", lambda: bundle_of(own_mesh, own_mesh.anchor, anchor))
        all_certified_anew("leaves of the new issuer", new_issuer)
        all_certified_anew("the old anchor gone", lambda: bundle_of(own_mesh, anchor))
        seen = load.ok
        until("requests on the new anchor alone", lambda: load.ok > seen + 100, 10)
        for _ in range(20):
            assert client.get(address).status == 200
    assert load.failures == []
    for pod in pods:
        assert pod.proxy.process.poll() is None
