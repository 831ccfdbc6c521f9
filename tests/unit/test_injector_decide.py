"""Decisions: every reason has a pod that it is given for, and says what to do about it."""

import re
from typing import Any

import pytest

from components.injector.config import InjectorConfig, ProxySettings
from components.injector.decide import (
    EARLY_CONTAINERS,
    REASONS,
    SILENT,
    Decision,
    Inject,
    Namespace,
    Refuse,
    Skip,
    decide,
)
from components.injector.patch import Owner

CONFIG = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1"))
ENABLED = {"linkerd.io/inject": "enabled"}
DEMO = Namespace("demo", ENABLED)


def pod(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app"}], **spec}}


def decided(
    given: dict[str, Any],
    namespace: Namespace = DEMO,
    config: InjectorConfig = CONFIG,
    *,
    native: bool = True,
    owner: Owner | None = None,
) -> Decision:
    return decide(given, namespace, config, native_supported=native, owner=owner)


def injected(given: dict[str, Any], **options: Any) -> Inject:
    found = decided(given, **options)
    assert isinstance(found, Inject), found
    return found


def test_the_namespace_asks_for_injection() -> None:
    assert injected(pod()).native


def test_the_pod_wins_over_its_namespace() -> None:
    assert isinstance(decided(pod(ENABLED), Namespace("demo", {"linkerd.io/inject": "disabled"})), Inject)
    assert decided(pod({"linkerd.io/inject": "disabled"})) == Skip(
        "injection_disable_annotation_present", "annotation linkerd.io/inject: disabled on the pod"
    )


CONTAINER = {"name": "app"}
SKIPS: list[tuple[str, dict[str, Any], Namespace, str]] = [
    ("injection_enable_annotation_absent", pod(), Namespace("demo"), "linkerd.io/inject: enabled"),
    (
        "injection_disable_annotation_present",
        pod(),
        Namespace("demo", {"linkerd.io/inject": "disabled"}),
        "namespace demo",
    ),
    ("namespace_exempt", pod(ENABLED), Namespace("kube-system", ENABLED), "kube-system"),
    ("namespace_exempt", pod(ENABLED), Namespace("tulle"), "tulle"),
    (
        "namespace_exempt",
        pod(ENABLED),
        Namespace("demo", ENABLED, {"config.linkerd.io/admission-webhooks": "disabled"}),
        "demo",
    ),
    ("host_network_enabled", pod(hostNetwork=True), DEMO, "Remove hostNetwork"),
    ("unsupported_resource", {"metadata": {}, "spec": {}}, DEMO, "no containers"),
    ("unsupported_resource", pod(os={"name": "windows"}), DEMO, "windows"),
    ("unsupported_resource", pod(nodeSelector={"kubernetes.io/os": "windows"}), DEMO, "windows"),
    ("sidecar_already_exists", pod(containers=[CONTAINER, {"name": "linkerd-proxy"}]), DEMO, "linkerd-proxy"),
    ("sidecar_already_exists", pod(initContainers=[{"name": "linkerd-proxy"}]), DEMO, "linkerd-proxy"),
    ("sidecar_already_exists", pod(initContainers=[{"name": "linkerd-init"}]), DEMO, "linkerd-init"),
    ("sidecar_already_exists", pod(containers=[CONTAINER, {"name": "istio-proxy"}]), DEMO, "Istio"),
]


@pytest.mark.parametrize(("reason", "given", "namespace", "words"), SKIPS)
def test_pods_that_stay_outside(reason: str, given: dict[str, Any], namespace: Namespace, words: str) -> None:
    found = decided(given, namespace)
    assert isinstance(found, Skip)
    assert found.reason == reason
    assert words in found.message


JOB = Owner("job", "nightly")
CLASSIC = {"config.linkerd.io/proxy-enable-native-sidecar": "false"}
REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("invalid_inject_annotation_at_workload", pod({"linkerd.io/inject": "true"}), {}, "'true'.*enabled, disabled"),
    ("invalid_inject_annotation_at_workload", pod({"linkerd.io/inject": "ingress"}), {}, "not supported yet"),
    (
        "invalid_inject_annotation_at_ns",
        pod(),
        {"namespace": Namespace("demo", {"linkerd.io/inject": "yes"})},
        "'yes'.*namespace demo",
    ),
    ("proxy_uid_in_use", pod(securityContext={"runAsUser": 2102}), {}, "'app' is 2102.*proxy-uid"),
    (
        "proxy_uid_in_use",
        pod(containers=[CONTAINER, {"name": "second", "securityContext": {"runAsUser": 2102}}]),
        {},
        "'second'",
    ),
    (
        "proxy_uid_in_use",
        pod(initContainers=[{"name": "first", "securityContext": {"runAsUser": 2102}}]),
        {},
        "'first'",
    ),
    ("proxy_port_in_use", pod(containers=[{"name": "app", "ports": [{"containerPort": 4143}]}]), {}, "port 4143"),
    ("invalid_annotation", pod({"config.linkerd.io/proxy-cpu-limit": "lots"}), {}, "proxy-cpu-limit='lots'.*quantity"),
    (
        "native_sidecar_unsupported",
        pod({"config.linkerd.io/proxy-enable-native-sidecar": "true"}),
        {"native": False},
        "1.29",
    ),
    ("job_needs_native_sidecar", pod(CLASSIC), {"owner": JOB}, "never completes"),
    ("job_needs_native_sidecar", pod(), {"owner": JOB, "native": False}, "never completes"),
]


@pytest.mark.parametrize(("reason", "given", "options", "words"), REFUSALS)
def test_pods_that_may_not_start(reason: str, given: dict[str, Any], options: dict[str, Any], words: str) -> None:

    found = decided(given, **options)
    assert isinstance(found, Refuse), found
    assert found.reason == reason
    assert re.search(words, found.message), found.message


def test_every_reason_is_shown_above() -> None:
    shown = {reason for reason, *_ in SKIPS} | {reason for reason, *_ in REFUSALS}
    assert shown | {"udp_ports_enabled", "annotation_without_effect", EARLY_CONTAINERS} == set(REASONS)
    assert set(REASONS) >= SILENT


def test_a_container_with_a_user_of_its_own_is_not_refused_for_its_pods() -> None:
    injected(
        pod(securityContext={"runAsUser": 2102}, containers=[{"name": "app", "securityContext": {"runAsUser": 1}}])
    )
    injected(pod({"config.linkerd.io/proxy-uid": "3000"}, securityContext={"runAsUser": 2102}))


def test_ports_of_the_proxy_that_were_moved_are_free() -> None:
    taken = [{"name": "app", "ports": [{"containerPort": 4143}, {"containerPort": 4191, "protocol": "UDP"}]}]
    injected(pod({"config.linkerd.io/inbound-port": "5143"}, containers=taken))


@pytest.mark.parametrize(
    ("mode", "annotation", "supported", "native"),
    [
        ("auto", None, True, True),
        ("auto", None, False, False),
        ("auto", "false", True, False),
        ("classic", None, True, False),
        ("classic", "true", True, True),
        ("native", None, True, True),
        ("native", "false", True, False),
    ],
)
def test_the_sidecars_kind(mode: Any, annotation: str | None, supported: bool, native: bool) -> None:
    config = InjectorConfig(proxy=CONFIG.proxy, sidecar=mode)
    annotations = {"config.linkerd.io/proxy-enable-native-sidecar": annotation} if annotation else None
    assert injected(pod(annotations), config=config, native=supported).native is native


def test_a_job_may_have_a_classic_sidecar_that_it_can_stop() -> None:
    given = pod({**CLASSIC, "config.linkerd.io/proxy-admin-shutdown": "enabled"})
    assert not injected(given, owner=JOB).native
    assert injected(pod(), owner=JOB).native


def test_udp_ports_and_annotations_without_effect_are_told() -> None:
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]
    found = injected(pod({"config.linkerd.io/enable-gateway": "true"}, containers=[{"name": "app", "ports": ports}]))
    assert [notice.reason for notice in found.notices] == ["udp_ports_enabled", "annotation_without_effect"]
    assert "port 53" in found.notices[0].message
    assert "enable-gateway" in found.notices[1].message


def test_a_pod_without_a_mounted_token_is_injected_since_the_proxy_has_its_own() -> None:
    injected(pod(automountServiceAccountToken=False))
