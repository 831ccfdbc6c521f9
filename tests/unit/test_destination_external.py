"""Machines outside the cluster: which Services mean them, who they are, and when they are endpoints."""

import msgspec
import pytest

from components.destination import objects
from components.destination.external import ExternalFacts
from components.destination.index import Address, Index
from components.destination.model import ServiceFacts, service_facts
from components.destination.ports import parse_ports
from tests.kit.facts import endpoint, endpoint_slice, external, pod

VIP: Address = ("10.1.0.1", 80)
IDENTITY = "machine.demo.serviceaccount.identity.tulle.cluster.local"


def service(target: int | str | None = "http", selector: dict[str, str] | None = None) -> ServiceFacts:
    port = {"port": 80, "name": "http", **({} if target is None else {"targetPort": target})}
    raw = {
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": {"clusterIP": VIP[0], "ports": [port], "selector": {"app": "web"} if selector is None else selector},
    }
    return service_facts(msgspec.convert(raw, objects.Service))


def index_of(*facts: ExternalFacts | ServiceFacts) -> Index:
    index = Index("cluster.local", parse_ports("25"))
    index.watch(VIP)
    for each in facts:
        if isinstance(each, ServiceFacts):
            index.apply_service(None, each)
        else:
            index.apply_external(None, each)
    return index


def endpoints(index: Index) -> dict[str, str]:
    return {each.address: each.identity for each in index.view(VIP).endpoints.values()}


def test_a_machine_that_a_service_selects_is_an_endpoint_with_its_identity() -> None:
    index = index_of(service(), external("vm"))
    assert endpoints(index) == {"192.0.2.10:8080": IDENTITY}
    (found,) = index.view(VIP).endpoints.values()
    assert dict(found.labels) == {"external_workload": "vm", "namespace": "demo", "serviceaccount": "machine"}


@pytest.mark.parametrize("target", [8080, "http"])
def test_the_target_port_is_a_number_or_a_name(target: int | str) -> None:
    assert list(endpoints(index_of(service(target), external("vm")))) == ["192.0.2.10:8080"]


@pytest.mark.parametrize("target", [None, 9999, "grpc"])
def test_a_machine_without_the_port_is_no_endpoint(target: int | str | None) -> None:
    assert endpoints(index_of(service(target), external("vm"))) == {}


def test_a_service_means_labels_of_its_own_namespace() -> None:
    assert endpoints(index_of(service(), external("vm", namespace="shop"))) == {}
    assert endpoints(index_of(service(), external("vm", labels={"app": "other"}))) == {}
    assert endpoints(index_of(service(selector={}), external("vm", labels={}))) == {}


def test_only_a_machine_that_is_ready_is_called() -> None:
    index = index_of(service(), external("vm", ready=False))
    assert endpoints(index) == {}
    assert index.apply_external(external("vm", ready=False), external("vm")) == {VIP}
    assert endpoints(index) == {"192.0.2.10:8080": IDENTITY}
    assert index.apply_external(external("vm"), None) == {VIP}
    assert endpoints(index) == {}


def test_a_change_that_no_watched_service_means_touches_nothing() -> None:
    index = index_of(service())
    assert index.apply_external(None, external("vm", labels={"app": "other"})) == set()
    # Its labels begin to fit, and then do so no more: both are seen.
    assert index.apply_external(external("vm", labels={"app": "other"}), external("vm")) == {VIP}
    assert index.apply_external(external("vm"), external("vm", labels={"app": "other"})) == {VIP}


def test_machines_and_pods_are_endpoints_of_one_service() -> None:
    index = index_of(service(), external("vm"))
    index.apply_pod(None, pod("web-1", "10.2.0.1", meshed=True))
    index.apply_slice(None, endpoint_slice("web-a", "web", endpoint("10.2.0.1", "web-1"), ports=(("http", 8080),)))
    assert set(endpoints(index)) == {"192.0.2.10:8080", "10.2.0.1:8080"}


def test_an_address_of_the_other_family_is_left_out() -> None:
    assert endpoints(index_of(service(), external("vm", "fd00::10"))) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("machine.shop.serviceaccount.identity.tulle.cluster.local", "is of another namespace than 'demo'"),
        ("machine.demo.serviceaccount.identity.other.cluster.local", "does not end in"),
        ("other.demo.serviceaccount.identity.tulle.cluster.local", "meshTLS.identity="),
    ],
)
def test_a_name_that_is_not_its_own_is_never_called(name: str, words: str) -> None:
    facts = external("vm", server_name=name)
    assert words in facts.problem
    assert endpoints(index_of(service(), facts)) == {}
