"""Two control planes side by side on the real cluster: a namespace goes over to one by its label and comes back in one
step, under load, and what is in use is not removed.
"""

import time
from collections.abc import Iterator

import pytest

from components.cli import exposition
from components.cli.check import run_checks
from components.revision.names import serving
from proxy.api import labels
from tests.kit.cluster import MESH, Kube
from tests.kit.stack import Stack
from tests.kit.waiting import until
from tests.kube.test_outages import Load, component_pods, restarts

CANARY = "canary"
STREAMS = "tulle_destination_watches"


@pytest.fixture
def stack(kube: Kube) -> Iterator[Stack]:
    with Stack() as made:
        assert made.is_quiet(), "what is deployed is not what this code declares"
        yield made
        if not made.is_quiet():
            made.up()


@pytest.fixture
def load(kube: Kube, image: str, meshed: str) -> Load:
    return Load(kube, image, meshed)


def label(kube: Kube, namespace: str, revision: str | None) -> None:
    kube.merge("v1", "Namespace", "", namespace, {"metadata": {"labels": {labels.REVISION: revision}}})


def roll(kube: Kube, namespace: str) -> None:
    for app in ("api", "web"):
        kube.restart(namespace, app)
    for app in ("api", "web"):
        kube.rolled_out(namespace, app)


def served_by(kube: Kube, namespace: str) -> dict[str, str]:
    """Which destination the proxies of a namespace ask, by app."""
    pods = [pod for pod in kube.pods(namespace) if not pod["metadata"].get("deletionTimestamp")]
    return {pod["metadata"]["labels"].get("app", ""): serving(pod).partition(".")[0] for pod in pods if serving(pod)}


def watches(kube: Kube, component: str) -> float:
    """Streams of discovery that a destination serves."""
    (pod,) = component_pods(kube, component)
    text = kube.pod_get(MESH, pod["metadata"]["name"], labels.CONTROLLER_ADMIN_PORT, "/metrics").decode()
    return exposition.value(text, STREAMS) or 0.0


def findings(kube: Kube) -> dict[str, str]:
    return {each.name: each.status for each in run_checks(kube, MESH)}


@pytest.mark.timeout(900)
def test_a_namespace_goes_over_to_a_revision_and_comes_back_under_load(kube: Kube, stack: Stack, load: Load) -> None:
    namespace, mark, begun = load.namespace, load.mark(), time.monotonic()
    own = {pod["metadata"]["name"]: restarts(kube, MESH, pod["metadata"]["name"]) for pod in kube.pods(MESH)}
    with_canary = {"revisions": {CANARY: {name: stack.images[name] for name in ("proxy", "control")}}}
    stack.up(with_canary)
    assert stack.is_quiet(with_canary)
    assert findings(kube)[f"control-plane-injector-{CANARY}"] == "ok"
    # Nobody has asked for it.
    assert set(served_by(kube, namespace).values()) == {"destination"}

    label(kube, namespace, CANARY)
    roll(kube, namespace)
    moved = served_by(kube, namespace)
    assert (moved["api"], moved["web"]) == (f"destination-{CANARY}", f"destination-{CANARY}")
    # Its endpoints come from there, over mutual TLS with a certificate from there.
    until("discovery of its pods", lambda: watches(kube, f"destination-{CANARY}") > 0, 30)
    checked = findings(kube)
    assert checked["revisions"] == "ok"
    assert not [name for name, status in checked.items() if status == "error"]
    text = stack.refused()
    assert f"revision {CANARY} would be removed, but pods in {namespace} are still served by it" in text

    label(kube, namespace, None)
    roll(kube, namespace)
    assert set(served_by(kube, namespace).values()) == {"destination"}
    until("its pods to be gone", lambda: stack.run("preview").returncode == 0, 60, 2)
    stack.up()
    assert stack.is_quiet()
    assert not component_pods(kube, f"identity-{CANARY}")
    load.assert_clean(mark, time.monotonic() - begun)
    after = {pod["metadata"]["name"]: restarts(kube, MESH, pod["metadata"]["name"]) for pod in kube.pods(MESH)}
    assert {name: after.get(name) for name in own} == own
    assert not [name for name, status in findings(kube).items() if status == "error"]


@pytest.mark.timeout(120)
def test_a_namespace_that_asks_for_a_revision_that_is_not_there_is_told_of(kube: Kube, meshed: str) -> None:
    label(kube, meshed, "typo")
    found = {each.name: each for each in run_checks(kube, MESH)}
    assert found["revisions"].status == "warning"
    assert f"{meshed} (typo)" in found["revisions"].message
