"""A run of an upgrade against an API server in memory whose Deployments roll at once: order, stops, and going on.

Prometheus' answers are given here; the real one is asked in `tests/kube/test_upgrade.py`.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from components.deploy.cluster import Cluster
from components.deploy.deployment import Deployment
from components.deploy.errors import DeployError, StoppedError
from components.deploy.refs import Target
from components.deploy.steps import Action, Tally
from components.injector.config import CONFIG_KEY, CONFIG_MAP, InjectorConfig, ProxySettings, encode_config
from components.upgrade import record as records
from components.upgrade.running import CONTROL_PLANE, RESTARTED_AT, Upgrade
from components.upgrade.settings import Settings, settings_of
from components.upgrade.survey import Workload, proxy_image
from proxy.api import labels
from tests.iac.kit import CERTIFICATE, Graph, arguments, run
from tests.iac.rest import RestApi, serving, unguarded
from tests.unit.test_upgrade_waves import NEW, OLD, namespace, pod, workload

Json = dict[str, Any]
SETTINGS = Settings("tulle", NEW, {}, ("cart", "shop"), ("shop",), 50, 1, 1, True, "")


class Rollouts:
    """What the controllers would do: a changed template brings new pods, with the proxy that the injector gives."""

    def __init__(self, api: RestApi) -> None:
        self.api = api
        self.restarted: list[str] = []
        self.gives = NEW
        self.after: Callable[[str], None] = lambda _: None
        self._answer = api.answer
        api.answer = self.answer  # type: ignore[method-assign]

    def answer(self, verb: str, target: str, body: str) -> tuple[int, Json]:
        result = self._answer(verb, target, body)
        parts = target.split("?")[0].split("/")
        if verb == "PATCH" and "deployments" in parts:
            space, name = parts[-3], parts[-1]
            self.restarted.append(f"{space}/{name}")
            self.api.put("pods", pod(name, self.gives, space=space), space)
            self.after(f"{space}/{name}")
        return result


@dataclass(slots=True)
class Answers:
    """A Prometheus that says of every namespace what it is told to."""

    share: float = 1.0

    def query(self, promql: str) -> list["Number"]:
        return [Number(100.0 * (self.share if 'classification="success"' in promql else 1.0))]


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(slots=True)
class Place:
    """A mesh with six workloads in two namespaces, all of them with the older proxy."""

    api: RestApi
    target: Target
    rollouts: Rollouts
    prometheus: Answers
    lines: list[str]

    def upgrade(self, settings: Settings = SETTINGS) -> Upgrade:
        return Upgrade(Cluster(self.target), settings, self.prometheus, self.lines.append)

    def record(self) -> records.Record:
        found = records.decode(self.api.get("configmaps", records.NAME, "tulle"))
        assert found is not None
        return found

    def stamp(self, space: str, name: str) -> str:
        live = self.api.get("deployments", name, space)
        assert live is not None
        return str((live["spec"]["template"]["metadata"].get("annotations") or {}).get(RESTARTED_AT, ""))

    def configure(self, image: str) -> None:
        config = encode_config(InjectorConfig(ProxySettings(image=image, version="2"))).decode()
        self.api.put("configmaps", {"metadata": {"name": CONFIG_MAP}, "data": {CONFIG_KEY: config}}, "tulle")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving(tmp_path) as (api, target):
        for space in ("tulle", "shop", "cart"):
            api.put("namespaces", {"kind": "Namespace", **namespace(space)})
        for name in CONTROL_PLANE:
            api.put("deployments", workload(name, space="tulle"), "tulle")
        found = Place(api, target, Rollouts(api), Answers(), [])
        found.configure(NEW)
        for space in ("shop", "cart"):
            for name in "abc":
                api.put("deployments", workload(name, space=space), space)
                api.put("pods", pod(name, OLD, space=space), space)
        yield found


def test_waves_go_through_the_stacks_namespaces_and_a_second_run_does_nothing(place: Place) -> None:
    outcome = place.upgrade().run()
    assert place.rollouts.restarted == ["shop/a", "shop/b", "shop/c", "cart/a", "cart/b", "cart/c"]
    assert len(outcome.restarted) == 6
    assert not outcome.found.outdated
    record = place.record()
    assert record.state == records.DONE
    assert place.stamp("shop", "a") == record.started == place.stamp("cart", "c")
    assert [line for line in place.lines if "wave" in line and "before" not in line] == [
        "shop, wave 1: deployment/a, deployment/b; then 3 more", "shop, wave 1: deployment/c; then 2 more",
        "cart, wave 1: deployment/a, deployment/b; then 1 more", "cart, wave 1: deployment/c; the last",
    ]  # fmt: skip
    writes = len(place.api.writes)
    assert place.upgrade().run().restarted == ()
    assert len(place.api.writes) == writes, "nothing is written where nothing is to be done"


def test_a_fall_of_success_stops_after_the_wave_and_the_run_goes_on_once_it_is_back(place: Place) -> None:
    def broken(which: str) -> None:
        place.prometheus.share = 0.8 if which == "shop/b" else place.prometheus.share

    place.rollouts.after = broken
    with pytest.raises(DeployError, match=r"namespace shop, .*success fell from 100.0 % to 80.0 %"):
        place.upgrade().run()
    assert place.rollouts.restarted == ["shop/a", "shop/b"]
    assert place.record().state == records.STOPPED

    with pytest.raises(DeployError, match="success fell"):
        place.upgrade().run()
    assert place.rollouts.restarted == ["shop/a", "shop/b"], "still no better: not one more restart"

    place.prometheus.share = 1.0
    place.rollouts.after = lambda _: None
    place.upgrade().run()
    assert place.rollouts.restarted[2:] == ["shop/c", "cart/a", "cart/b", "cart/c"]


def test_a_fall_may_be_accepted(place: Place) -> None:
    place.rollouts.after = lambda _: setattr(place.prometheus, "share", 0.5)
    with pytest.raises(DeployError, match="success fell"):
        place.upgrade().run()
    again = place.upgrade()
    again.accept()
    again.run()
    assert place.record().state == records.DONE


class KilledError(BaseException):
    """kill -9, as far as a process can do it to itself."""


@pytest.mark.parametrize("after", ["shop/a", "shop/b", "shop/c", "cart/a"])
def test_a_killed_run_restarts_nothing_twice_and_judges_what_it_left_unjudged(place: Place, after: str) -> None:
    upgrade = place.upgrade()
    patch = upgrade._restart

    def dies(record: records.Record, workload: Workload) -> None:
        patch(record, workload)
        if f"{workload.namespace}/{workload.name}" == after:
            raise KilledError

    upgrade._restart = dies  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        upgrade.run()
    done = len(place.rollouts.restarted)
    started, place.lines = place.record().started, []
    place.upgrade().run()
    assert len(place.rollouts.restarted) == 6 > done
    assert len(set(place.rollouts.restarted)) == 6
    assert place.stamp("cart", "c") == started, "one upgrade, one stamp"
    assert place.lines[1] == f"  {after.partition('/')[0]}: watching for 1 s"


def test_pods_that_come_back_no_newer_end_it(place: Place) -> None:
    place.rollouts.gives = "elsewhere/proxy:9"
    with pytest.raises(DeployError, match="was restarted, but its new pods do not run"):
        place.upgrade().run()
    assert len(place.rollouts.restarted) == 2


def test_whoever_stops_a_run_is_not_kept_waiting_by_its_pauses(place: Place) -> None:
    stop = threading.Event()
    slow = Upgrade(Cluster(place.target), replace(SETTINGS, pause=600), place.prometheus, place.lines.append, stop)
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    with pytest.raises(StoppedError):
        slow.run()
    timer.join()
    assert not place.rollouts.restarted
    assert place.record().state == records.RUNNING, "the next run goes on"


def test_the_control_plane_comes_first(place: Place) -> None:
    place.configure(OLD)
    with pytest.raises(DeployError, match=f"gives pods proxy {OLD}, but the stack declares {NEW}\n  Run `tulle up`"):
        place.upgrade().run()
    place.configure(NEW)
    live = place.api.get("deployments", "destination", "tulle")
    assert live is not None
    live["status"]["availableReplicas"] = 0
    with pytest.raises(DeployError, match="Deployment tulle/destination is not ready"):
        place.upgrade().plan()
    assert not place.rollouts.restarted


def test_without_prometheus_it_restarts_only_when_told_to_measure_nothing(place: Place) -> None:
    blind = Upgrade(Cluster(place.target), SETTINGS, None, place.lines.append)
    with pytest.raises(DeployError, match="there is no Prometheus"):
        blind.run()
    assert not place.rollouts.restarted
    Upgrade(Cluster(place.target), replace(SETTINGS, tolerance=100), None, place.lines.append).run()
    assert len(place.rollouts.restarted) == 6


def graph_of(**overrides: str) -> Graph:
    from components.mesh import Mesh

    settings = arguments("local", **overrides)
    return run(lambda: Mesh("tulle", settings))


def test_a_stack_that_asks_for_it_has_its_data_plane_after_everything_else() -> None:
    assert not graph_of().of("DataPlane"), "nobody's pods are restarted unasked"
    given = {"upgrade_restart": "true", "meshedNamespaces": '["shop"]', "upgrade_first": '["shop"]'}
    (plane,) = graph_of(**given).of("DataPlane")
    assert plane.inputs["namespaces"] == ["shop", "demo"]
    assert plane.inputs["first"] == ["shop"]
    for needed in ("injector-deployment", "prometheus-deployment", "tulle-shop-namespace", "demo-web-deployment"):
        assert any(urn.endswith(needed) for urn in plane.depends), needed


def test_a_pause_is_long_enough_for_samples() -> None:
    assert settings_of(arguments("local", upgrade_pause="5s")).pause == 20
    assert settings_of(arguments("prod")).pause == 60
    mesh = arguments("existing", upgrade_first=json.dumps(["default"]), trust_bundle=CERTIFICATE)
    assert settings_of(mesh).prometheus_url == "http://prometheus.monitoring:9090"
    assert settings_of(mesh).namespaces == ("default",)
    assert labels.MESH_NAMESPACE not in settings_of(mesh).namespaces


@dataclass(slots=True)
class Whole:
    """The whole mesh on an API server in memory, with one adopted namespace and a workload in it."""

    api: RestApi
    target: Target
    rollouts: Rollouts

    def deploy(self, tag: str, **more: str) -> Tally:
        found = unguarded(Path(self.target.kubeconfig).parent)
        values = {"images.tag": tag, "upgrade.restart": "true", "upgrade.tolerance": "100", "upgrade.pause": "1s"}
        values |= {"demo.enabled": "false", "prometheus.scrapeInterval": "1s", "adoptedNamespaces": '["shop"]', **more}
        made = Deployment(found, "local", found.config("local", values), self.target)
        self.rollouts.gives = f"localhost/tulle/proxy:{tag}"
        try:
            return made.up().tally
        finally:
            made.close()

    def pods(self) -> list[str]:
        found = self.api.objects.items()
        return [proxy_image(each) for (kind, place, _), each in found if (kind, place) == ("pods", "shop")]


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    with serving(tmp_path) as (api, target):
        api.put("namespaces", {"kind": "Namespace", **namespace("shop")})
        yield Whole(api, target, Rollouts(api))


@pytest.mark.timeout(900)
def test_a_deployment_with_a_new_version_brings_the_control_plane_first_and_then_the_pods(whole: Whole) -> None:
    whole.deploy("1")
    whole.api.put("deployments", workload("web"), "shop")
    whole.api.put("pods", pod("web", "localhost/tulle/proxy:1"), "shop")
    assert whole.deploy("1").quiet, "what runs is what is declared"

    whole.api.writes.clear()
    tally = whole.deploy("2")
    written = [what for verb, what in whole.api.writes if verb == "PATCH" and what.startswith("deployments/")]
    assert written[-1] == "deployments/shop/web", "last of all"
    assert {f"deployments/tulle/{name}" for name in CONTROL_PLANE} < set(written)
    assert whole.pods() == ["localhost/tulle/proxy:2"]
    assert any("DataPlane" in step.label and step.action is Action.UPDATE for step in tally.steps)
    assert whole.deploy("2").quiet

    # One that stops leaves the deployment undone, and the next one goes on.
    answer, whole.api.answer = whole.api.answer, whole.rollouts._answer  # type: ignore[method-assign]
    with pytest.raises(DeployError, match="its new pods do not run what its injector gives"):
        whole.deploy("3")
    whole.api.answer = answer  # type: ignore[method-assign]
    whole.api.put("deployments", workload("web"), "shop")
    assert not whole.deploy("3").quiet
    assert whole.pods() == ["localhost/tulle/proxy:3"]
