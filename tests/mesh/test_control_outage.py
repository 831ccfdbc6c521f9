"""A control plane that vanishes without a word, as with its node: requests go on."""

import time
from collections.abc import Iterator

import pytest

from tests.kit.lines import App, Load
from tests.kit.topology import Mesh
from tests.kit.waiting import until

PORT = 8080
NOTICED = 25
"""Seconds: a ping every ten, five for its answer, and a margin for a busy machine."""


@pytest.fixture
def own_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh whose control plane may be cut off; `mesh` is asked for only because it skips where none can be made."""
    with Mesh() as made:
        yield made


def test_a_control_plane_that_vanishes_is_noticed_outlived_and_found_again(own_mesh: Mesh) -> None:
    old, new, client = (own_mesh.pod(name, account="web") for name in ("web-old", "web-new", "client"))
    address = own_mesh.service("web", 80, [old], target=PORT)
    with App(old, PORT), App(new, PORT), Load(client, address, clients=1) as load:
        until("first requests", lambda: load.ok > 20, 10)
        own_mesh.control_pod.namespace.run("ip", "link", "set", "eth0", "down")
        until("the loss", lambda: "control connection lost" in client.proxy.log, NOTICED)
        time.sleep(5)
        assert load.failures == []
        own_mesh.endpoints("web", [new], PORT)
        own_mesh.control_pod.namespace.run("ip", "link", "set", "eth0", "up")
        until("the new endpoint", lambda: b"web-new" in load.bodies, 10)
    assert load.failures == []
    assert all(pod.proxy.process.poll() is None for pod in (old, new, client))
