"""Facts of objects: who is meshed, as whom, by which owner, and what of its annotations counts."""

import msgspec
import pytest

from components.destination import objects
from components.destination.model import pod_facts
from components.destination.ports import parse_ports
from tests.kit.facts import MESH, endpoint, endpoint_slice, namespace, pod, raw_pod, service

IDENTITY = "web.demo.serviceaccount.identity.tulle.cluster.local"


def test_a_meshed_pod_has_its_accounts_identity() -> None:
    assert pod("a", "10.0.0.1", meshed=True).identity == IDENTITY


def test_a_pod_without_account_is_the_default_account() -> None:
    found = pod("a", "10.0.0.1", meshed=True, account="")
    assert found.identity.startswith("default.demo.")


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("no label", lambda raw: raw["metadata"].update(labels={})),
        ("another mesh's label", lambda raw: raw["metadata"].update(labels={"linkerd.io/control-plane-ns": "linkerd"})),
        ("no proxy container", lambda raw: raw["spec"].update(initContainers=None)),
        ("the node's network", lambda raw: raw["spec"].update(hostNetwork=True)),
    ],
)
def test_label_and_container_are_both_needed(case: str, change: object) -> None:
    raw = raw_pod("a", "10.0.0.1", meshed=True)
    change(raw)  # type: ignore[operator]
    assert pod_facts(msgspec.convert(raw, objects.Pod), MESH).identity == "", case


def test_a_classic_sidecar_counts_too() -> None:
    raw = raw_pod("a", "10.0.0.1", meshed=True)
    proxy = raw["spec"]["initContainers"].pop()
    raw["spec"]["containers"].append(proxy)
    assert pod_facts(msgspec.convert(raw, objects.Pod), MESH).identity == IDENTITY


def test_skipped_ports_are_those_of_the_pods_own_redirection_but_not_the_proxys() -> None:
    found = pod("a", "10.0.0.1", meshed=True, skip="4190,4191,8443,9000-9001")
    assert [port for port in (4190, 4191, 8443, 9000, 9001, 80) if port in found.skipped] == [8443, 9000, 9001]
    assert 5191 not in pod("moved", "10.0.0.4", meshed=True, skip="4190,5191", admin=5191).skipped
    assert 4567 in pod("b", "10.0.0.2", meshed=True).skipped
    assert 4567 not in pod("c", "10.0.0.3").skipped


def test_what_the_proxy_was_started_with_wins_over_the_annotation() -> None:
    annotations = {"config.linkerd.io/opaque-ports": "99"}
    assert pod("a", meshed=True, opaque="3306", annotations=annotations).opaque == parse_ports("3306")
    assert pod("a", meshed=True, annotations=annotations).opaque == parse_ports("99")
    assert pod("a", annotations={"config.linkerd.io/opaque-ports": "http"}).opaque == parse_ports("8080")
    assert pod("a").opaque is None


def test_a_bad_annotation_is_not_used_and_is_told() -> None:
    found = pod("a", annotations={"config.linkerd.io/opaque-ports": "nonsense"})
    assert found.opaque is None
    assert "'nonsense'" in found.problem
    assert "'x'" in service("web", "10.1.0.1", annotations={"config.linkerd.io/opaque-ports": "x"}).problem
    assert "'x'" in namespace(opaque="x").problem


@pytest.mark.parametrize(
    ("owner", "template", "label"),
    [
        (("ReplicaSet", "web-5d4f"), "5d4f", ("deployment", "web")),
        (("ReplicaSet", "web-5d4f"), "", ("replicaset", "web-5d4f")),
        (("ReplicaSet", "alone"), "5d4f", ("replicaset", "alone")),
        (("StatefulSet", "db"), "", ("statefulset", "db")),
        (("DaemonSet", "agent"), "", ("daemonset", "agent")),
        (("Job", "nightly-1"), "", ("job", "nightly-1")),
    ],
)
def test_the_owner_is_a_label(owner: tuple[str, str], template: str, label: tuple[str, str]) -> None:
    found = dict(pod("a", owner=owner, template=template).labels)
    assert found[label[0]] == label[1]
    assert found.get("pod_template_hash", "") == template
    assert (found["namespace"], found["pod"], found["serviceaccount"]) == ("demo", "a", "web")


def test_owners_of_unknown_kind_make_no_label() -> None:
    assert set(dict(pod("a", owner=("Workflow", "w")).labels)) == {"namespace", "pod", "serviceaccount"}


def test_finished_and_leaving_pods_say_so() -> None:
    assert not pod("a", phase="Succeeded").alive
    assert not pod("a", phase="Failed").alive
    assert pod("a", leaving=True).leaving


def test_a_heartbeat_changes_no_fact() -> None:
    raw = raw_pod("a", "10.0.0.1", meshed=True)
    before = pod_facts(msgspec.convert(raw, objects.Pod), MESH)
    raw["status"]["conditions"] = [{"type": "Ready", "lastProbeTime": "now"}]
    raw["metadata"]["resourceVersion"] = "2"
    assert pod_facts(msgspec.convert(raw, objects.Pod), MESH) == before


def test_a_service_has_its_tcp_ports_and_its_addresses() -> None:
    found = service("web", ["10.1.0.1", "fd00::1"], (80, "http"), (81, ""))
    assert found.ips == ("10.1.0.1", "fd00::1")
    assert found.ports == ((80, "http"), (81, ""))
    assert service("headless", "None", (80, "http")).ips == ()
    assert service("external-name", "").ips == ()


def test_an_endpoint_is_ready_unless_it_says_no() -> None:
    found = endpoint_slice(
        "s",
        "web",
        endpoint("10.0.0.1"),
        endpoint("10.0.0.2", "b", ready=False, serving=True, terminating=True, zone="z1"),
    )
    assert [(each.ready, each.serving, each.terminating) for each in found.endpoints] == [
        (True, True, False),
        (False, True, True),
    ]
    assert found.endpoints[1].pod == ("demo", "b")
    assert found.endpoints[1].zone == "z1"
    assert endpoint_slice("s", "web", family="FQDN").family == 0
