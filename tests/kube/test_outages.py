"""Zero failed requests, counted by a client without retries, while what carries them is taken away and put back.

The load is at least 200 requests/s in an open loop over keep-alive connections and 100 new connections/s, through
traffic -> web (2 pods) -> api (3 pods), so that every request passes four proxies. A test whose client did not keep
that up has failed, however good its answers: it proved something else.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from components.cli import exposition
from components.cli.prometheus import is_ready
from components.deploy.refs import Ref
from proxy.api import labels
from tests.kit.apps import Apps, Client, since
from tests.kit.cluster import MESH, Kube, kill_proxy
from tests.kit.waiting import slowness, until

RATE: Final = 200
NEW: Final = 100
SPARE: Final = 1.15
"""More is sent than has to be, so that a client that was late for a moment still keeps its rates."""
CONTROL_PLANE: Final = (
    *((MESH, name) for name in ("injector", "destination", "identity", "prometheus")),
    (labels.TRUST_NAMESPACE, "trust"),
)
"""Namespace and name of every Deployment of the mesh."""
IN_FLIGHT_UNSEEN: Final = 5
"""The client's count is read before and after the kill; so many may be in flight between the two at these rates."""
REFRESHES: Final = "control_identity_cert_refreshes_total"

Json = dict[str, Any]


class Load:
    """The three tiers under load."""

    def __init__(self, kube: Kube, image: str, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        apps = Apps(kube, image)
        apps.serve("api", namespace, replicas=3, wait=False)
        apps.serve("web", namespace, replicas=2, env={"UPSTREAM": f"http://api.{namespace}:8080/"}, wait=False)
        kube.ready_pods(namespace, "api", 3)
        kube.ready_pods(namespace, "web", 2)
        self.client: Client = apps.client(namespace, f"http://web.{namespace}:8080/", RATE * SPARE, NEW * SPARE)
        self.client.wait_for(ok=1000)

    def mark(self) -> Json:
        return self.client.counts()

    def seen_since(self, mark: Json, settle: float = 2) -> Json:
        """What happened since, the last of it given time to be answered."""
        time.sleep(settle)
        return since(mark, self.client.counts())

    def assert_clean(self, mark: Json, seconds: float) -> Json:
        """No failure since the mark, and the client really kept up its rates."""
        seen = self.seen_since(mark)
        assert seen["failed"] == 0, f"{seen}\n{self.errors()}"
        assert seen["sent"] - seen["new_connections"] >= RATE * seconds, f"unfit: the client was late: {seen}"
        assert seen["new_connections"] >= NEW * seconds, f"unfit: the client was late: {seen}"
        return seen

    def answered_by(self) -> set[str]:
        """The api pods that have answered so far."""
        return {answer.split()[-1] for answer in self.client.counts()["answers"] if answer}

    def errors(self) -> str:
        """The proxies' own words, for a failed test's message."""
        lines = []
        for pod in self.kube.pods(self.namespace):
            name = pod["metadata"]["name"]
            log = self.kube.logs(self.namespace, name, "linkerd-proxy").splitlines()
            lines += [f"{name}: {line}" for line in log if re.search(r"(?i)warn|error", line)][-8:]
        return "\n".join(lines)


@pytest.fixture
def load(kube: Kube, image: str, meshed: str) -> Load:
    return Load(kube, image, meshed)


@pytest.fixture
def control_plane(kube: Kube) -> Iterator[dict[tuple[str, str], int]]:
    """The control plane's replicas, put back as they were whatever the test did."""
    before = {}
    for namespace, name in CONTROL_PLANE:
        found = kube.get(Ref("apps/v1", "Deployment", namespace, name))
        assert found is not None
        before[namespace, name] = found["spec"]["replicas"]
    yield before
    for (namespace, name), replicas in before.items():
        kube.scale(namespace, name, replicas)
    for namespace, name in before:
        kube.rolled_out(namespace, name)


@pytest.mark.timeout(900)
def test_the_control_plane_gone_for_60_seconds(
    kube: Kube, load: Load, control_plane: dict[tuple[str, str], int]
) -> None:
    mark, begun = load.mark(), time.monotonic()
    for namespace, name in CONTROL_PLANE:
        kube.scale(namespace, name, 0)
    until(
        "no control-plane pod left",
        lambda: not [pod for namespace, name in CONTROL_PLANE for pod in component_pods(kube, name, namespace)],
        60,
    )
    gone = time.monotonic()
    old = {pod["metadata"]["name"] for pod in kube.pods(load.namespace, "api")}
    victim = sorted(old)[0]
    kube.delete(Ref("v1", "Pod", load.namespace, victim))
    while time.monotonic() < gone + 60:
        time.sleep(1)
    for (namespace, name), replicas in control_plane.items():
        kube.scale(namespace, name, replicas)
    until(
        "a ready destination pod",
        lambda: [pod for pod in component_pods(kube, "destination") if is_ready(pod)],
        90,
        0.1,
    )
    destination_ready = time.monotonic()

    def replacement() -> str | None:
        found = [pod for pod in kube.pods(load.namespace, "api") if pod["metadata"]["name"] not in old]
        return found[0]["metadata"]["name"] if found and is_ready(found[0]) else None

    new = until("the replaced api pod ready", replacement, 120, 0.1)
    able = max(time.monotonic(), destination_ready)
    until(f"requests at {new}", lambda: new in load.answered_by(), 30, 0.1)
    took = time.monotonic() - able
    assert took <= 3 * slowness(), "a new endpoint is used within 3 s of the first ready destination pod"
    load.assert_clean(mark, time.monotonic() - begun)


def component_pods(kube: Kube, component: str, namespace: str = MESH) -> list[Json]:
    found = kube.list("v1", "Pod", namespace, f"app.kubernetes.io/component={component}")
    return [pod for pod in found if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]


@pytest.mark.timeout(900)
def test_api_rolls(kube: Kube, load: Load) -> None:
    mark, begun = load.mark(), time.monotonic()
    old = {pod["metadata"]["name"] for pod in kube.pods(load.namespace, "api")}
    kube.restart(load.namespace, "api")
    until(
        "no old api pod left",
        lambda: not old & {pod["metadata"]["name"] for pod in kube.list("v1", "Pod", load.namespace)},
        90,
    )
    load.assert_clean(mark, time.monotonic() - begun)
    assert len(load.answered_by() - old) == 3


@pytest.mark.timeout(900)
def test_leaves_that_live_60_seconds_rotate(kube: Kube, image: str, meshed: str) -> None:
    with short_leaves(kube):
        load = Load(kube, image, meshed)
        web = [pod["metadata"]["name"] for pod in kube.ready_pods(meshed, "web", 2)]

        def refreshes() -> dict[str, float]:
            return {name: renewed(kube.metrics(meshed, name)) for name in web}

        for name in web:
            expiry = exposition.value(kube.metrics(meshed, name), "control_identity_cert_expiration_timestamp_seconds")
            assert expiry is not None
            # Its end has a margin for clocks that differ.
            assert 0 < expiry - time.time() <= 100
        mark, begun, before = load.mark(), time.monotonic(), refreshes()
        until(
            "each web proxy renewed twice",
            lambda: all(count >= before[name] + 2 for name, count in refreshes().items()),
            150,
            1,
        )
        load.assert_clean(mark, time.monotonic() - begun)


def renewed(metrics: str) -> float:
    """How often a proxy has had its certificate renewed."""
    return sum(value for labels, value in exposition.series(metrics, REFRESHES) if labels.get("result", "ok") == "ok")


class short_leaves:
    """Identity issues leaves of 60 s within this block."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._args: list[str] = []

    def __enter__(self) -> None:
        found = self._kube.get(Ref("apps/v1", "Deployment", MESH, "identity"))
        assert found is not None
        container = next(c for c in found["spec"]["template"]["spec"]["containers"] if c["name"] != "linkerd-proxy")
        self._name, self._args = container["name"], container.get("args") or []
        kept = re.sub(r'"--leaf-lifetime(=[^"]*"|", "[^"]*")(, )?', "", json.dumps(self._args)).replace(", ]", "]")
        self._put([*json.loads(kept), "--leaf-lifetime=60s"])

    def __exit__(self, *_: object) -> None:
        self._put(self._args)

    def _put(self, args: list[str]) -> None:
        change = {"spec": {"template": {"spec": {"containers": [{"name": self._name, "args": args}]}}}}
        path = self._kube.path(Ref("apps/v1", "Deployment", MESH, "identity"))
        kind = "application/strategic-merge-patch+json"
        self._kube.request("PATCH", path, body=json.dumps(change), content_type=kind)
        self._kube.rolled_out(MESH, "identity")


@pytest.mark.timeout(900)
def test_an_api_proxy_killed(kube: Kube, load: Load) -> None:
    pods = kube.pods(load.namespace, "api")
    victim = pods[0]["metadata"]["name"]
    mark = load.mark()
    at_the_kill = load.client.counts()["in_flight"]
    kill_proxy(load.namespace, victim)
    at_the_kill = max(at_the_kill, load.client.counts()["in_flight"])
    until("the proxy started again", lambda: restarts(kube, load.namespace, victim) >= 1, 60)
    kube.ready_pods(load.namespace, "api", len(pods))
    seen = load.seen_since(mark)
    # Only requests that were in flight on the killed proxy may fail: no more than the client had in flight anywhere.
    # Web answers them with a 502; each is counted.
    assert seen["failed"] <= max(at_the_kill, IN_FLIGHT_UNSEEN), f"{at_the_kill} in flight; {seen}\n{load.errors()}"
    assert all(cause.startswith("status 502 upstream: ") for cause in seen["causes"]), seen
    mark, begun = load.mark(), time.monotonic()
    load.client.wait_for(ok=mark["ok"] + 20 * (RATE + NEW))
    load.assert_clean(mark, time.monotonic() - begun)
    assert victim in since(mark, load.mark())["answers"] or any(
        victim in answer for answer in since(mark, load.mark())["answers"]
    ), "the pod is used again"


def restarts(kube: Kube, namespace: str, pod: str) -> int:
    found = kube.get(Ref("v1", "Pod", namespace, pod)) or {}
    status = found.get("status") or {}
    every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return sum(int(entry["restartCount"]) for entry in every if entry["name"] == "linkerd-proxy")


def test_the_load_itself_is_seen_to_fail(kube: Kube, image: str, meshed: str) -> None:
    """The client can count a failure: without this, zero would prove nothing."""
    apps = Apps(kube, image)
    apps.serve("api", meshed, replicas=1)
    client = apps.client(meshed, f"http://api.{meshed}:8080/", rate=20, new=20)
    client.wait_for(ok=20)
    kube.scale(meshed, "api", 0)
    failed = until("failures counted", lambda: client.counts()["failed"] or None, 60)
    assert failed > 0
    assert client.counts()["causes"]
