"""The proxy's settings: defaults, what follows from them, and what a bad value is told."""

from dataclasses import fields
from ipaddress import ip_address, ip_network

import pytest

from proxy.processors import quota, workers
from proxy.settings import PREFIX, Address, PortSet, Probe, SettingError, Settings, port_set, read, unknown, variable

LEAST = {"POD_IPS": "10.244.0.7", "POD_NAME": "web-1", "POD_NAMESPACE": "demo"}


def settings(**changes: str) -> Settings:
    return read({PREFIX + name: value for name, value in (LEAST | changes).items()})


def test_what_the_injector_always_knows_is_enough() -> None:
    assert settings().identity.dns_name == "default.demo.serviceaccount.identity.tulle.cluster.local"
    assert settings().log == "info"
    assert settings().inbound_connect_timeout == 0.3
    assert 3306 in settings().inbound_opaque_ports
    assert settings().metrics_identities == ("prometheus.tulle.serviceaccount.identity.tulle.cluster.local",)
    assert settings().identity_svc_name == "identity.tulle.serviceaccount.identity.tulle.cluster.local"


def test_names_of_the_control_plane_follow_the_mesh() -> None:
    found = settings(MESH_NAMESPACE="mesh", TRUST_DOMAIN="example.org")
    assert found.destination_svc_name == "destination.mesh.serviceaccount.identity.mesh.example.org"
    assert settings(DESTINATION_SVC_NAME="x.y").destination_svc_name == "x.y"


@pytest.mark.parametrize(
    ("ips", "inbound", "outbound"),
    [
        ("10.0.0.1", ["0.0.0.0:4143"], ["127.0.0.1:4140"]),
        ("10.0.0.1,fd00::1", ["[::]:4143"], ["127.0.0.1:4140", "[::1]:4140"]),
        ("fd00::1", ["[::]:4143"], ["127.0.0.1:4140", "[::1]:4140"]),
    ],
)
def test_listeners_follow_the_pods_addresses(ips: str, inbound: list[str], outbound: list[str]) -> None:
    found = settings(POD_IPS=ips)
    assert [str(a) for a in found.inbound_listen_addr] == inbound
    assert [str(a) for a in found.outbound_listen_addr] == outbound
    assert found.admin_listen_addr[0].port == 4191


def test_listeners_may_be_given() -> None:
    found = settings(OUTBOUND_LISTEN_ADDR="127.0.0.1:1, [::1]:2").outbound_listen_addr
    assert found == (Address("127.0.0.1", 1), Address("::1", 2))


def test_values_are_typed() -> None:
    found = settings(
        INBOUND_PROBES='[{"port": 8080, "path": "/healthz"}]',
        CLUSTER_NETWORKS="10.0.0.0/8, fd00::/8",
        SHUTDOWN_ENDPOINT_ENABLED="true",
        SHUTDOWN_GRACE_PERIOD="1h",
        METRICS_IDENTITIES="a.b, c.d",
    )
    assert found.inbound_probes == (Probe(8080, "/healthz"),)
    assert found.cluster_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert found.shutdown_endpoint_enabled is True
    assert found.shutdown_grace_period == 3600
    assert found.metrics_identities == ("a.b", "c.d")
    assert found.pod_ips == (ip_address("10.244.0.7"),)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LOG", "loud", "write one of error, warn, info, debug"),
        ("LOG_FORMAT", "xml", "write one of plain, json"),
        ("INBOUND_LISTEN_ADDR", "4143", "write host:port"),
        ("INBOUND_LISTEN_ADDR", "[::1:4143", "in brackets"),
        ("INBOUND_LISTEN_ADDR", "::1:4143", "in brackets"),
        ("INBOUND_LISTEN_ADDR", "somewhere:4143", "'somewhere'"),
        ("ADMIN_LISTEN_ADDR", "0.0.0.0:0", "'0' is not a port"),
        ("POD_IPS", "", "write the pod's addresses"),
        ("POD_IPS", "10.0.0.x", "10.0.0.x"),
        ("POD_NAME", "", "must not be empty"),
        ("POD_NAMESPACE", "Demo", "namespace 'Demo' is not a lower-case DNS name"),
        ("IDENTITY_SVC_ADDR", "identity", "write host:port"),
        ("DESTINATION_SVC_ADDR", "a b:80", "write host:port"),
        ("INBOUND_DEFAULT_POLICY", "allow", "all-unauthenticated, all-authenticated"),
        ("CLUSTER_NETWORKS", "10.0.0.1/8", "has host bits set"),
        ("INBOUND_OPAQUE_PORTS", "1,x", "'x' is not a port"),
        ("INBOUND_OPAQUE_PORTS", "9-5", "empty range"),
        ("INBOUND_PROBES", "nonsense", "write JSON such as"),
        ("INBOUND_PROBES", '{"port": 1}', "write JSON such as"),
        ("INBOUND_PROBES", '[{"port": 0, "path": "/"}]', "'0' is not a port"),
        ("INBOUND_PROBES", '[{"port": 1, "path": "x"}]', "must start with /"),
        ("METRICS_PLAINTEXT", "yes", "write true or false"),
        ("INBOUND_DETECT_TIMEOUT", "10", "write an integer and a unit"),
        ("INBOUND_DETECT_TIMEOUT", "-1s", "write an integer and a unit"),
        ("INBOUND_DETECT_TIMEOUT", "1.5s", "write an integer and a unit"),
        ("INBOUND_DETECT_TIMEOUT", "400d", "at most 365d"),
        ("MAX_IN_FLIGHT", "0", "write a positive integer"),
        ("MAX_IN_FLIGHT", "many", "write a positive integer"),
        ("CORES", "0", "write a positive integer"),
        ("CORES_MAX_RATIO", "1.5", "write a number above 0 and up to 1"),
        ("CORES_MAX_RATIO", "nan", "write a number above 0 and up to 1"),
    ],
)
def test_a_bad_value_is_named_with_the_way_out(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingError) as raised:
        settings(**{name: value})
    line = str(raised.value)
    assert words in line
    assert "\n" not in line
    if name != "POD_NAMESPACE":
        assert line.startswith(f"{PREFIX}{name}={value!r}: ")


@pytest.mark.parametrize("name", list(LEAST))
def test_what_has_no_default_must_be_set(name: str) -> None:
    with pytest.raises(SettingError, match=f"^{PREFIX}{name} is not set: set it"):
        read({PREFIX + key: value for key, value in LEAST.items() if key != name})


def test_variables_that_are_no_settings_are_found() -> None:
    service = {PREFIX + "SERVICE_HOST": "10.0.0.1", "OTHER": "x", PREFIX + "LOG": "info"}
    assert unknown(service) == [PREFIX + "SERVICE_HOST"]


def test_every_setting_has_a_sentence() -> None:
    for row in fields(Settings):
        assert row.metadata["sentence"].endswith("."), variable(row)


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        ("", ()),
        ("80", ((80, 80),)),
        ("80,80,81", ((80, 81),)),
        ("1-10,5-20, 30", ((1, 20), (30, 30))),
        ("1-65535", ((1, 65535),)),
    ],
)
def test_ports_are_sorted_and_merged(value: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert port_set(value) == PortSet(ranges)
    assert port_set(str(port_set(value))) == PortSet(ranges)
    assert all(low in PortSet(ranges) and high in PortSet(ranges) for low, high in ranges)
    assert 0 not in PortSet(ranges)
    assert "80" not in PortSet(ranges)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("web", False)],
)
def test_loopback_is_recognised(host: str, is_loopback: bool) -> None:
    assert Address(host, 1).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("given", "allowed", "expected"),
    [
        ({}, 64, 1),
        ({"CORES": "3"}, 4, 3),
        ({"CORES": "4"}, 4, 4),
        ({"CORES_MAX": "3"}, 64, 3),
        ({"CORES_MAX": "3"}, 2, 2),
        ({"CORES_MAX_RATIO": "0.25"}, 16, 4),
        ({"CORES_MAX_RATIO": "0.25"}, 1, 1),
        ({"CORES_MAX": "2", "CORES_MAX_RATIO": "1"}, 16, 2),
        ({"CORES_MAX_RATIO": "0.1", "CORES_MIN": "3"}, 16, 3),
        ({"CORES_MIN": "3"}, 2, 2),
    ],
)
def test_workers_follow_linkerds_rule(given: dict[str, str], allowed: int, expected: int) -> None:
    assert workers(settings(**given), allowed) == expected


def test_a_number_of_workers_that_the_machine_has_not_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^TULLE_PROXY_CORES='5': write 1 to 4, .* set TULLE_PROXY_CORES_MAX"):
        workers(settings(CORES="5"), 4)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000\n", None), ("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("", None)],
)
def test_a_quota_counts_begun_cpus(text: str, cpus: int | None) -> None:
    assert quota(text) == cpus
