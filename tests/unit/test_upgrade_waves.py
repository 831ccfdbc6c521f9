"""Upgrades, decided by value: which proxies are older, which wave restarts whom, and when an upgrade goes on."""

from typing import Any

import pytest

from components.injector.config import InjectorConfig, ProxySettings
from components.injector.control_plane import served_by
from components.upgrade import record as records
from components.upgrade.record import Record
from components.upgrade.survey import Survey, Workload, barred, selects, survey
from components.upgrade.waves import OBSERVATIONS, Figures, Go, Pause, Stop, judge, order, queries, waves
from proxy.api import labels

OLD, NEW = "registry.example/proxy:1", "registry.example/proxy:2"
CONFIG = InjectorConfig(ProxySettings(image=NEW, version="2"))
Json = dict[str, Any]


def namespace(name: str, **annotations: str) -> Json:
    given = {labels.INJECT: "enabled", **{key.replace("_", "-"): text for key, text in annotations.items()}}
    return {"metadata": {"name": name, "annotations": given}}


def workload(name: str, kind: str = "Deployment", space: str = "shop", **spec: Any) -> Json:
    template = spec.pop("template", {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app"}]}})
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": space},
        "spec": {"replicas": 2, "template": template, **spec},
    }


def pod(
    owner: str,
    image: str = OLD,
    kind: str = "Deployment",
    space: str = "shop",
    mesh: str = "tulle",
    destination: str = "destination",
) -> Json:
    metadata: Json = {"name": f"{owner}-x", "namespace": space, "labels": {labels.CONTROL_PLANE_NAMESPACE: mesh}}
    if kind == "Deployment":
        metadata["labels"]["pod-template-hash"] = "abc"
        metadata["ownerReferences"] = [{"controller": True, "kind": "ReplicaSet", "name": f"{owner}-abc"}]
    elif kind:
        metadata["ownerReferences"] = [{"controller": True, "kind": kind, "name": owner}]
    asked = f"{destination}.{mesh}.serviceaccount.identity.{mesh}.cluster.local"
    env = [{"name": "TULLE_PROXY_DESTINATION_SVC_NAME", "value": asked}]
    proxy = {"name": labels.PROXY_CONTAINER, "image": image, "env": env}
    containers = [{"name": labels.INIT_CONTAINER, "image": image}, proxy]
    return {"metadata": metadata, "spec": {"initContainers": containers, "containers": [{"name": "app"}]}}


def look(pods: list[Json], workloads: list[Json], *spaces: Json) -> Survey:
    given = list(spaces) or [namespace("shop")]
    configs = {"": CONFIG, "canary": served_by(CONFIG, "canary")}
    return survey(pods, workloads, given, configs, [each["metadata"]["name"] for each in given])


def test_only_workloads_with_other_proxies_than_their_pods_would_get_are_older() -> None:
    found = look(
        [pod("web"), pod("api", NEW), pod("db", OLD, "StatefulSet"), pod("half"), pod("half", NEW)],
        [workload("web"), workload("api"), workload("db", "StatefulSet"), workload("half")],
    )
    assert [str(each) for each in found.outdated] == ["deployment/half", "deployment/web", "statefulset/db"]
    assert found.sizes == {"shop": 4}
    assert not found.left


def test_in_a_namespace_of_a_revision_its_injector_says_what_is_older() -> None:
    moved, odd = namespace("moved"), namespace("odd")
    moved["metadata"]["labels"] = {labels.REVISION: "canary"}
    odd["metadata"]["labels"] = {labels.REVISION: "gone"}
    pods = [
        pod("stayed", NEW, space="moved"),
        pod("there", NEW, space="moved", destination="destination-canary"),
        pod("back", NEW, destination="destination-canary"),
        pod("home", NEW, space="odd"),
    ]
    workloads = [workload("stayed", space="moved"), workload("there", space="moved"), workload("back")]
    found = look(pods, [*workloads, workload("home", space="odd")], moved, odd, namespace("shop"))
    assert [f"{each.namespace}/{each.name}" for each in found.outdated] == ["moved/stayed", "shop/back"]


def test_pods_of_other_meshes_of_other_namespaces_and_on_their_way_out_do_not_count() -> None:
    leaving, done = pod("a"), pod("b")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    done["status"] = {"phase": "Succeeded"}
    found = look([leaving, done, pod("c", mesh="other"), pod("d", space="else")], [workload(n) for n in "abcd"])
    assert found == Survey((), {}, ())


def test_an_image_pinned_by_annotation_is_what_its_pods_would_get() -> None:
    pinned = namespace("shop", **{f"{labels.CONFIG_PREFIX}proxy-version": "1"})
    assert not look([pod("web", OLD)], [workload("web")], pinned).outdated
    assert look([pod("web", NEW)], [workload("web")], pinned).outdated, "and the newer one is not"


@pytest.mark.parametrize(
    ("pods", "workloads", "spaces", "reason"),
    [
        ([pod("web")], [workload("web", paused=True)], [], "its rollouts are paused"),
        ([pod("db", kind="StatefulSet")], [workload("db", "StatefulSet", updateStrategy={"type": "OnDelete"})], [],
         "delete its pods yourself"),
        ([pod("db", kind="StatefulSet")],
         [workload("db", "StatefulSet", updateStrategy={"rollingUpdate": {"partition": 1}})], [], "set it to 0"),
        ([pod("solo", kind="")], [], [], "no workload would make anew"),
        ([pod("sum", kind="Job")], [], [], "its next run has the new proxy"),
        ([pod("web", kind="Rollout")], [], [], "restart it by its own means"),
        ([pod("web")], [workload("web")], [{"metadata": {"name": "shop"}}], "neither the pod nor namespace shop"),
        ([pod("web")], [workload("web")], [namespace("shop", **{f"{labels.CONFIG_PREFIX}proxy-uid": "x"})],
         "is not valid"),
        ([pod("web")], [workload("web", template={"spec": {"containers": [{"name": labels.PROXY_CONTAINER}]}})], [],
         "already has a linkerd-proxy"),
    ],
)  # fmt: skip
def test_what_a_restart_would_not_bring_forward_is_left_and_named(
    pods: list[Json], workloads: list[Json], spaces: list[Json], reason: str
) -> None:
    found = look(pods, workloads, *spaces)
    assert not found.outdated
    (left,) = found.left
    assert reason in left.reason


def budget(allowed: int, **selector: Any) -> Json:
    given = selector or {"matchLabels": {"app": "web"}}
    return {
        "metadata": {"name": "keep", "namespace": "shop"},
        "spec": {"selector": given},
        "status": {"disruptionsAllowed": allowed},
    }


@pytest.mark.parametrize(
    ("spec", "kind", "allowed", "waits"),
    [
        ({"strategy": {"rollingUpdate": {"maxUnavailable": 0}}}, "Deployment", 0, False),
        ({"replicas": 2}, "Deployment", 0, False),  # 25 % of 2, rounded down, is none
        ({"replicas": 4}, "Deployment", 0, True),
        ({"replicas": 4}, "Deployment", 1, False),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": 2}}}, "Deployment", 1, True),
        ({"strategy": {"type": "Recreate"}}, "Deployment", 1, True),
        ({}, "StatefulSet", 0, True),
        ({}, "StatefulSet", 1, False),
    ],
)
def test_a_restart_waits_for_budgets_only_where_it_takes_ready_pods_away(
    spec: Json, kind: str, allowed: int, waits: bool
) -> None:
    reason = barred(workload("web", kind, **spec), [budget(allowed)])
    assert bool(reason) is waits
    assert not waits or f"PodDisruptionBudget keep allows {allowed}" in reason
    assert not barred(workload("other", kind, **spec), [budget(allowed)]), "another workload's budget"


def test_a_daemon_set_takes_away_what_it_says_of_its_nodes() -> None:
    daemons = workload("web", "DaemonSet", updateStrategy={"rollingUpdate": {"maxUnavailable": "10%"}})
    daemons["status"] = {"desiredNumberScheduled": 11}
    assert "2 ready pods" in barred(daemons, [budget(1)])
    assert not barred(daemons, [budget(2)])


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "api"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors_match_as_in_policy_v1(selector: Json | None, matches: bool) -> None:
    assert selects(selector, {"app": "web"}) is matches


def test_namespaces_go_in_the_order_of_the_stack_and_waves_by_their_share() -> None:
    spaces = order(["c", "b", "a"], ["b", "of-others"])
    assert spaces == ["b", "a", "c"]
    todo = tuple(Workload(space, "deployment", name) for space in "ab" for name in "vwxyz")
    planned = waves(Survey(todo, {"a": 5, "b": 5}, ()), spaces, 40)
    assert [(wave.namespace, wave.number, len(wave.workloads)) for wave in planned] == [
        ("b", 1, 2), ("b", 2, 2), ("b", 3, 1), ("a", 1, 2), ("a", 2, 2), ("a", 3, 1),
    ]  # fmt: skip
    # A run that goes on after the first wave has the same waves before it.
    rest = waves(Survey(todo[:5] + todo[7:], {"a": 5, "b": 5}, ()), spaces, 40)
    assert [wave.workloads for wave in rest] == [wave.workloads for wave in planned[1:]]
    assert [len(wave.workloads) for wave in waves(Survey(todo[:5], {"a": 5}, ()), ["a"], 1)] == [1] * 5
    assert len(waves(Survey(todo, {"a": 5, "b": 5}, ()), spaces, 100)) == 2, "never two namespaces at once"


WELL: Figures = {"served": (10.0, 1.0), "called": (10.0, 1.0)}


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "says"),
    [
        (WELL, WELL, 1, ""),
        (WELL, {"served": (10.0, 0.995), "called": (10.0, 0.99)}, 1, ""),
        (WELL, {"served": (10.0, 0.98), "called": (10.0, 1.0)}, 1, "served"),
        (WELL, {"served": (9.0, 1.0), "called": (10.0, 0.5)}, 10, "called"),
        (WELL, {"called": (10.0, 1.0)}, 1, "none now"),
        (WELL, {}, 100, ""),
        ({"served": (10.0, 0.5)}, {"served": (10.0, 0.5)}, 0, ""),  # it was no better before
        ({"served": (10.0, 0.5)}, {"served": (10.0, 0.45)}, 1, "from 50.0 % to 45.0 %"),
        ({"served": (0.1, 1.0)}, {}, 1, ""),  # six responses a minute: nothing to judge by
        ({}, {"served": (10.0, 0.0)}, 1, ""),
    ],
)
def test_a_fall_of_success_pauses_first_and_then_stops(
    before: Figures, after: Figures, tolerance: int, says: str
) -> None:
    first = judge(before, after, tolerance, 60, 1)
    last = judge(before, after, tolerance, 60, OBSERVATIONS)
    if not says:
        assert isinstance(first, Go)
        assert isinstance(last, Go)
        return
    assert isinstance(first, Pause)
    assert isinstance(last, Stop)
    words = {"served": "namespace's servers", "called": "calls into the namespace"}
    assert words.get(says, says) in last.reason


def test_success_is_measured_where_it_shows() -> None:
    asked = queries("shop", 60)
    assert set(asked) == {"served", "sent", "called"}
    for every, good in asked.values():
        assert "[60s]" in every
        assert good == every.replace("}[", ',classification="success"}[')
    assert 'direction="inbound"' in asked["served"][0]
    assert 'dst_namespace="shop"' in asked["called"][0]


def test_a_record_comes_back_as_it_was_and_what_is_no_record_is_none() -> None:
    record = Record(NEW, "2026-11-26T04:00:00+00:00", records.STOPPED, "why", "shop", {"shop": WELL})
    assert records.decode(records.encode(record, "tulle", "7")) == record
    assert records.encode(record, "tulle", "7")["metadata"]["resourceVersion"] == "7"
    broken = {**records.encode(record, "tulle")["data"], "before": "["}
    for nothing in (None, {}, {"data": {"image": NEW}}, {"data": broken}):
        assert records.decode(nothing) is None
