"""The index: what each address is, who stands behind it, and that whoever watches it hears of every change that
matters.
"""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.destination.index import (
    EXTERNAL,
    Address,
    AddressError,
    Index,
    Kind,
    View,
    format_address,
    parse_address,
)
from components.destination.model import NamespaceFacts, PodFacts, ServiceFacts, SliceFacts
from components.destination.ports import parse_ports
from tests.kit.facts import endpoint, endpoint_slice, namespace, pod, service

VIP: Address = ("10.1.0.1", 80)
IDENTITY = "web.demo.serviceaccount.identity.tulle.cluster.local"


class World:
    """An index with the objects that are in it, and the addresses said to be touched by the last change."""

    def __init__(self, *watched: Address) -> None:
        self.index = Index("cluster.local", parse_ports("25,3306"))
        self.objects: dict[tuple[type, Any], Any] = {}
        self.touched: set[Address] = set()
        for address in watched or (VIP,):
            self.index.watch(address)

    def put(self, *facts: Any) -> "World":
        for each in facts:
            self._apply(each, each)
        return self

    def drop(self, each: Any) -> "World":
        self._apply(each, None)
        return self

    def holds(self, each: Any) -> bool:
        return self._key(each) in self.objects

    @staticmethod
    def _key(each: Any) -> tuple[type, Any]:
        return (type(each), getattr(each, "key", None) or each.name)

    def _apply(self, named: Any, new: Any) -> None:
        key = self._key(named)
        apply: Any = {
            PodFacts: self.index.apply_pod,
            ServiceFacts: self.index.apply_service,
            SliceFacts: self.index.apply_slice,
            NamespaceFacts: self.index.apply_namespace,
        }[type(named)]
        self.touched = apply(self.objects.get(key), new)
        if new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = new

    def view(self, address: Address = VIP) -> View:
        return self.index.view(address)

    def endpoints(self, address: Address = VIP) -> dict[str, str]:
        """Address and identity of each endpoint."""
        return {each.address: each.identity for each in self.view(address).endpoints.values()}


WEB = service("web", "10.1.0.1", (80, "http"), (3306, "sql"))


def test_a_service_port_is_a_service_with_its_name_and_labels() -> None:
    view = World().put(WEB).view()
    assert view.kind is Kind.SERVICE
    assert view.authority == "web.demo.svc.cluster.local:80"
    assert view.labels == (("namespace", "demo"), ("service", "web"))
    assert view.endpoints == {}


def test_unknown_addresses_and_undeclared_ports_are_external() -> None:
    world = World().put(WEB)
    assert world.view(("192.0.2.1", 443)) == EXTERNAL
    assert world.view(("192.0.2.1", 3306)) == View(Kind.EXTERNAL, opaque=True), "servers that speak first, anywhere"
    assert world.view(("10.1.0.1", 81)) == EXTERNAL
    assert world.view(("10.1.0.1", 53)) == EXTERNAL, "UDP ports are not TCP ports"


def test_endpoints_are_joined_to_their_pods() -> None:
    world = World().put(
        WEB,
        pod("a", "10.0.0.1", meshed=True),
        pod("b", "10.0.0.2"),
        endpoint_slice("s", "web", endpoint("10.0.0.1", "a", zone="z1"), endpoint("10.0.0.2", "b")),
    )
    assert world.endpoints() == {"10.0.0.1:8080": IDENTITY, "10.0.0.2:8080": ""}
    found = dict(world.view().endpoints["10.0.0.1:8080"].labels)
    assert found == {"namespace": "demo", "pod": "a", "serviceaccount": "web", "zone": "z1"}


def test_an_endpoint_waits_for_its_pod() -> None:
    world = World().put(WEB, endpoint_slice("s", "web", endpoint("10.0.0.1", "a")))
    assert world.endpoints() == {}, "published now, a meshed pod could be called in plaintext"
    world.put(pod("a", "10.0.0.1", meshed=True))
    assert world.touched == {VIP}
    assert world.endpoints() == {"10.0.0.1:8080": IDENTITY}


def test_an_endpoint_is_not_joined_to_an_earlier_pod_of_its_name() -> None:
    world = World().put(WEB, pod("db-0", "10.0.0.1", uid="old"))
    world.put(endpoint_slice("s", "web", endpoint("10.0.0.9", "db-0", uid="new")))
    assert world.endpoints() == {}
    world.put(pod("db-0", "10.0.0.9", uid="new", meshed=True))
    assert world.endpoints() == {"10.0.0.9:8080": IDENTITY}


def test_endpoints_without_a_pod_are_published_as_outside_the_mesh() -> None:
    world = World().put(WEB, endpoint_slice("s", "web", endpoint("192.0.2.7")))
    assert world.endpoints() == {"192.0.2.7:8080": ""}


def test_only_ready_endpoints_count_until_none_is_left() -> None:
    world = World().put(
        WEB,
        endpoint_slice(
            "s",
            "web",
            endpoint("10.0.0.1"),
            endpoint("10.0.0.2", ready=False),
            endpoint("10.0.0.3", ready=False, serving=True, terminating=True),
        ),
    )
    assert set(world.endpoints()) == {"10.0.0.1:8080"}
    world.put(
        endpoint_slice(
            "s",
            "web",
            endpoint("10.0.0.2", ready=False),
            endpoint("10.0.0.3", ready=False, serving=True, terminating=True),
        )
    )
    assert set(world.endpoints()) == {"10.0.0.3:8080"}


def test_many_slices_make_one_service_and_a_moved_endpoint_is_one() -> None:
    world = World().put(
        WEB,
        endpoint_slice("s1", "web", endpoint("10.0.0.1"), endpoint("10.0.0.2")),
        endpoint_slice("s2", "web", endpoint("10.0.0.2"), endpoint("10.0.0.3")),
    )
    assert set(world.endpoints()) == {"10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"}
    world.drop(endpoint_slice("s1", "web"))
    assert world.touched == {VIP}
    assert set(world.endpoints()) == {"10.0.0.2:8080", "10.0.0.3:8080"}


def test_named_ports_may_differ_between_slices() -> None:
    world = World().put(
        WEB,
        endpoint_slice("s1", "web", endpoint("10.0.0.1"), ports=(("http", 8080), ("sql", 33060))),
        endpoint_slice("s2", "web", endpoint("10.0.0.2"), ports=(("http", 9090),)),
    )
    assert set(world.endpoints()) == {"10.0.0.1:8080", "10.0.0.2:9090"}
    assert set(world.endpoints(("10.1.0.1", 3306))) == {"10.0.0.1:33060"}


def test_each_family_has_its_own_endpoints() -> None:
    both = service("web", ["10.1.0.1", "fd00:1::1"], (80, "http"))
    world = World(VIP, ("fd00:1::1", 80)).put(
        both,
        endpoint_slice("s4", "web", endpoint("10.0.0.1")),
        endpoint_slice("s6", "web", endpoint("fd00::1"), family="IPv6"),
        endpoint_slice("sn", "web", endpoint("web.example"), family="FQDN"),
    )
    assert set(world.endpoints()) == {"10.0.0.1:8080"}
    assert set(world.endpoints(("fd00:1::1", 80))) == {"[fd00::1]:8080"}


def test_skipped_ports_have_no_identity() -> None:
    world = World().put(WEB, pod("a", "10.0.0.1", meshed=True, skip="4190,4191,8080"))
    world.put(endpoint_slice("s", "web", endpoint("10.0.0.1", "a")))
    assert world.endpoints() == {"10.0.0.1:8080": ""}
    assert world.endpoints(("10.0.0.1", 4191)) == {"10.0.0.1:4191": IDENTITY}


def test_a_pods_own_address_is_that_pod_on_any_port() -> None:
    world = World().put(pod("a", ["10.0.0.1", "fd00::1"], meshed=True))
    for address in (("10.0.0.1", 4191), ("10.0.0.1", 1), ("fd00::1", 8080)):
        view = world.view(address)
        assert view.kind is Kind.POD
        assert view.labels == (("namespace", "demo"),)
        assert [each.identity for each in view.endpoints.values()] == [IDENTITY]
        assert list(view.endpoints) == [format_address(*address)]


@pytest.mark.parametrize("words", [{"host_network": True}, {"phase": "Succeeded"}, {"phase": "Failed"}])
def test_an_address_is_not_that_of_a_finished_pod_or_of_the_node(words: dict[str, Any]) -> None:
    assert World().put(pod("a", "10.0.0.1", **words)).view(("10.0.0.1", 80)) == EXTERNAL


def test_an_address_that_is_used_again_is_the_new_pods() -> None:
    watched = ("10.0.0.1", 80)
    world = World(watched).put(pod("new", "10.0.0.1", account="new"), pod("old", "10.0.0.1", leaving=True))
    assert dict(next(iter(world.view(watched).endpoints.values())).labels)["pod"] == "new"
    world.drop(pod("old"))
    world.drop(pod("new"))
    assert world.touched == {watched}
    assert world.view(watched) == EXTERNAL


def test_host_network_endpoints_have_labels_and_no_identity() -> None:
    world = World().put(WEB, pod("a", "10.9.9.9", meshed=True, host_network=True))
    world.put(endpoint_slice("s", "web", endpoint("10.9.9.9", "a")))
    assert world.endpoints() == {"10.9.9.9:8080": ""}
    assert dict(world.view().endpoints["10.9.9.9:8080"].labels)["pod"] == "a"


OPAQUE = {"config.linkerd.io/opaque-ports": "80"}


def test_the_service_says_what_is_opaque_then_its_namespace_then_the_mesh() -> None:
    world = World(VIP, ("10.1.0.1", 3306)).put(WEB)
    assert (world.view().opaque, world.view(("10.1.0.1", 3306)).opaque) == (False, True)
    world.put(namespace(opaque="80"))
    assert world.touched == {VIP, ("10.1.0.1", 3306)}
    assert (world.view().opaque, world.view(("10.1.0.1", 3306)).opaque) == (True, False)
    world.put(service("web", "10.1.0.1", (80, "http"), annotations={"config.linkerd.io/opaque-ports": ""}))
    assert not world.view().opaque


def test_a_pod_says_which_of_its_own_ports_are_opaque() -> None:
    world = World().put(WEB, pod("a", "10.0.0.1", annotations={"config.linkerd.io/opaque-ports": "8080"}))
    world.put(endpoint_slice("s", "web", endpoint("10.0.0.1", "a")))
    assert not world.view().opaque
    assert world.view().endpoints["10.0.0.1:8080"].opaque
    assert world.view(("10.0.0.1", 8080)).opaque
    assert world.view(("10.0.0.1", 3306)).opaque is False


def test_a_service_made_later_upgrades_the_target_and_its_end_downgrades_it() -> None:
    world = World()
    assert world.view() == EXTERNAL
    world.put(WEB)
    assert world.touched == {VIP}
    assert world.view().kind is Kind.SERVICE
    world.drop(WEB)
    assert world.touched == {VIP}
    assert world.view() == EXTERNAL


def test_an_address_may_pass_to_another_service_in_either_order() -> None:
    other = service("other", "10.1.0.1", (80, "http"))
    world = World().put(WEB, other).drop(WEB)
    assert world.view().authority.startswith("other.")
    world = World().put(WEB).drop(WEB).put(other)
    assert world.view().authority.startswith("other.")


def test_only_what_is_watched_is_reported() -> None:
    world = World(("10.1.0.9", 80)).put(WEB)
    assert world.touched == set()
    world.index.unwatch(("10.1.0.9", 80))
    world.put(service("late", "10.1.0.9", (80, "http")))
    assert world.touched == set()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[FD00:0::1]:80", ("fd00::1", 80)),
        ("[::ffff:10.0.0.1]:80", ("10.0.0.1", 80)),
    ],
)
def test_addresses_are_read_in_one_form(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(format_address(*address)) == address


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ":",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "web:80",
        "fd00::1:80",
        "[10.0.0.1]:80",
        "10.0.0.1:٣",
        "10.0.0.1:+80",
    ],
)
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(AddressError):
        parse_address(bad)


POOL: list[Any] = [
    WEB,
    service("web", "10.1.0.2", (80, "http")),
    service("web", "10.1.0.1", (80, "http"), annotations=OPAQUE),
    service("other", "10.1.0.1", (80, "http")),
    namespace(opaque="8080"),
    namespace(),
    *(pod(name, ip, meshed=meshed) for name in "ab" for ip in ("10.0.0.1", "10.0.0.2") for meshed in (False, True)),
    pod("a", "10.0.0.1", uid="other"),
    pod("b", "10.0.0.2", phase="Failed"),
    endpoint_slice("s1", "web", endpoint("10.0.0.1", "a")),
    endpoint_slice("s1", "web", endpoint("10.0.0.1", "a"), endpoint("10.0.0.2", "b", ready=False)),
    endpoint_slice("s2", "web", endpoint("10.0.0.2", "b")),
    endpoint_slice("s2", "other", endpoint("10.0.0.2", "b")),
]
WATCHED: list[Address] = [VIP, ("10.1.0.2", 80), ("10.0.0.1", 8080), ("10.0.0.2", 3306)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(POOL), st.booleans()), max_size=30))
def test_every_change_of_a_view_is_reported_and_no_history_matters(changes: list[tuple[Any, bool]]) -> None:
    world = World(*WATCHED)
    for facts, present in changes:
        before = {address: world.view(address) for address in WATCHED}
        if present:
            world.put(facts)
        elif world.holds(facts):
            world.drop(facts)
        changed = {address for address in WATCHED if world.view(address) != before[address]}
        assert changed <= world.touched
    fresh = World(*WATCHED)
    # Whatever the order was, the same objects make the same views; two owners of one address at once are an exception.
    remaining = list(world.objects.values())
    services = [each for each in remaining if isinstance(each, ServiceFacts)]
    pods = [each for each in remaining if isinstance(each, PodFacts)]
    if len({ip for each in services for ip in each.ips}) == len(services) and len({each.ips for each in pods}) == len(
        pods
    ):
        random.Random(0).shuffle(remaining)
        fresh.put(*remaining)
        assert [fresh.view(address) for address in WATCHED] == [world.view(address) for address in WATCHED]
