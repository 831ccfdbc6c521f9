"""Annotations: the pod's value wins over its namespace's, a bad one is refused by name, a forbidden one too."""

import pytest

from components.injector.annotations import WITHOUT_EFFECT, AnnotationError, Overrides, apply_annotations
from components.injector.config import KNOWN_OVERRIDES, ProxySettings
from proxy.api import labels

DEFAULTS = ProxySettings(image="localhost/tulle/proxy:1")
ALL = frozenset(KNOWN_OVERRIDES)


def applied(
    pod: dict[str, str] | None = None,
    namespace: dict[str, str] | None = None,
    allowed: frozenset[str] = ALL,
    **named: int,
) -> Overrides:
    return apply_annotations(DEFAULTS, prefixed(namespace or {}), prefixed(pod or {}), named, allowed)


def prefixed(annotations: dict[str, str]) -> dict[str, str]:
    return {key if "/" in key else labels.CONFIG_PREFIX + key: value for key, value in annotations.items()}


def test_nothing_said_is_nothing_changed() -> None:
    assert applied() == Overrides(DEFAULTS, None, ())


def test_the_pod_wins_over_its_namespace() -> None:
    found = applied({"proxy-log-level": "debug"}, {"proxy-log-level": "warn", "proxy-cpu-limit": "1"}).settings
    assert (found.log_level, found.resources.cpu_limit) == ("debug", "1")


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("admin-port", "5191", "admin_port", 5191),
        ("default-inbound-policy", "deny", "inbound_policy", "deny"),
        ("image-pull-policy", "Always", "image_pull_policy", "Always"),
        ("inbound-port", "5143", "inbound_port", 5143),
        ("opaque-ports", "sql,25", "opaque_ports", "3306,25"),
        ("opaque-ports", "", "opaque_ports", ""),
        ("outbound-port", "5140", "outbound_port", 5140),
        ("proxy-admin-shutdown", "enabled", "admin_shutdown", True),
        ("proxy-await", "disabled", "wait", False),
        ("proxy-disable-inbound-protocol-detect-timeout", "true", "inbound_detect_timeout", "365d"),
        ("proxy-disable-outbound-protocol-detect-timeout", "false", "outbound_detect_timeout", "10s"),
        ("proxy-cpu-ratio-limit", "0.5", "cpu_ratio_limit", "0.5"),
        ("proxy-gid", "0", "gid", 0),
        ("proxy-image", "other/proxy", "image", "other/proxy:1"),
        ("proxy-image", "other:5000/proxy:2", "image", "other:5000/proxy:2"),
        ("proxy-inbound-connect-timeout", "100ms", "inbound_connect_timeout", "100ms"),
        ("proxy-log-format", "json", "log_format", "json"),
        ("access-log", "apache", "access_log", "apache"),
        ("proxy-outbound-connect-timeout", "1000ms", "outbound_connect_timeout", "1000ms"),
        ("proxy-outbound-discovery-cache-unused-timeout", "5s", "discovery_idle_timeout", "5s"),
        ("proxy-uid", "3000", "uid", 3000),
        ("proxy-version", "v2", "image", "localhost/tulle/proxy:v2"),
        ("proxy-wait-before-exit-seconds", "5", "wait_before_exit_seconds", 5),
        ("config.alpha.linkerd.io/proxy-wait-before-exit-seconds", "5", "wait_before_exit_seconds", 5),
        ("shutdown-grace-period", "10s", "shutdown_grace_period", "10s"),
        ("skip-inbound-ports", "1-2", "skip_inbound_ports", "1-2"),
        ("skip-outbound-ports", " 443 ", "skip_outbound_ports", "443"),
        ("skip-subnets", "10.0.0.0/8", "skip_subnets", "10.0.0.0/8"),
    ],
)
def test_each_annotation_changes_its_setting(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(applied({name: value}, sql=3306).settings, field) == expected


@pytest.mark.parametrize("kind", ["cpu", "memory", "ephemeral-storage"])
@pytest.mark.parametrize("side", ["request", "limit"])
def test_each_quantity_changes_its_resource(kind: str, side: str) -> None:
    found = applied({f"proxy-{kind}-{side}": "7"}).settings.resources
    assert getattr(found, f"{kind.replace('-', '_')}_{side}") == "7"


@pytest.mark.parametrize("prefix", ["config.", "config.alpha.", "config.beta."])
def test_the_sidecars_kind_can_be_forced_in_three_spellings(prefix: str) -> None:
    assert applied({f"{prefix}linkerd.io/proxy-enable-native-sidecar": "false"}).native_sidecar is False
    assert applied(namespace={f"{prefix}linkerd.io/proxy-enable-native-sidecar": "true"}).native_sidecar is True


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("proxy-log-level", "loud", "error, warn, info or debug"),
        ("default-inbound-policy", "all", "all-unauthenticated"),
        ("opaque-ports", "mysql", "ports and ranges"),
        ("proxy-cpu-limit", "lots", "quantity"),
        ("proxy-cpu-limit", "1e9999999", "quantity"),
        ("proxy-cpu-ratio-limit", "2", "above 0 and up to 1"),
        ("proxy-uid", "root", "whole number between 1"),
        ("proxy-await", "true", "enabled, disabled"),
        ("proxy-enable-native-sidecar", "1", "true, false"),
        ("skip-subnets", "everything", "CIDR"),
        ("shutdown-grace-period", "120", "ms, s, m, h or d"),
    ],
)
@pytest.mark.parametrize("place", ["pod", "namespace"])
def test_a_bad_value_names_annotation_value_place_and_what_is_allowed(
    place: str, name: str, value: str, allowed: str
) -> None:
    with pytest.raises(AnnotationError) as caught:
        applied(**{place: {name: value}})  # type: ignore[arg-type]
    message = str(caught.value)
    assert f"the {place}'s annotation config.linkerd.io/{name}={value!r}" in message
    assert allowed in message


def test_a_pod_may_set_only_what_the_mesh_allows() -> None:
    allowed = frozenset({"proxy-log-level"})
    assert applied({"proxy-log-level": "debug"}, allowed=allowed).settings.log_level == "debug"
    with pytest.raises(AnnotationError, match=r"proxy-image.*not allowed.*proxy-log-level"):
        applied({"proxy-image": "evil/proxy"}, allowed=allowed)


def test_a_namespace_may_set_what_a_pod_may_not_and_the_pod_may_repeat_it() -> None:
    none: frozenset[str] = frozenset()
    assert applied(namespace={"proxy-uid": "9"}, allowed=none).settings.uid == 9
    assert applied({"proxy-uid": "9"}, {"proxy-uid": "9"}, none).settings.uid == 9


def test_annotations_without_effect_are_reported() -> None:
    found = applied(dict.fromkeys(WITHOUT_EFFECT, "x") | {"no-such-thing": "x", "example.com/other": "x"})
    assert found.settings == DEFAULTS
    assert set(found.without_effect) == {labels.CONFIG_PREFIX + name for name in (*WITHOUT_EFFECT, "no-such-thing")}
    assert applied({"access-log": "json"}).without_effect == ()
    with pytest.raises(AnnotationError, match="apache, json"):
        applied({"access-log": "xml"})


def test_the_proxys_ports_may_not_collide() -> None:
    with pytest.raises(AnnotationError, match="three different ports"):
        applied({"inbound-port": "4191"})
