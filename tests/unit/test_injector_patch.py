"""Injected pods, whole, as golden files: what changes in them is meant. `UPDATE_GOLDEN=1` writes them anew."""

import copy
import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from components.injector.config import InjectorConfig, ProxySettings, Resources
from components.injector.decide import Inject, Namespace, decide
from components.injector.patch import Owner, inject_pod, kubelet_probes, validator_container
from proxy.api import labels

GOLDEN: Final = Path(__file__).parent / "golden" / "injector"
CONFIG: Final = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1", version="1"))
ENABLED: Final = Namespace("demo", {"linkerd.io/inject": "enabled"})
Json = dict[str, Any]

BARE: Final[Json] = {"metadata": {"name": "bare"}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}
FULL: Final[Json] = {
    "metadata": {
        "generateName": "web-",
        "labels": {"app": "web"},
        "annotations": {"example.com/kept": "yes"},
    },
    "spec": {
        "serviceAccountName": "web",
        "terminationGracePeriodSeconds": 300,
        "imagePullSecrets": [{"name": "theirs"}],
        "initContainers": [{"name": "migrate", "image": "migrate:1"}],
        "containers": [
            {
                "name": "app",
                "image": "app:1",
                "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                "readinessProbe": {"httpGet": {"port": 8080}},
                "startupProbe": {"tcpSocket": {"port": 8080}},
            },
            {"name": "helper", "image": "helper:1"},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}
CLASSIC: Final = {"config.linkerd.io/proxy-enable-native-sidecar": "false"}
OVERRIDES: Final = {
    "config.linkerd.io/admin-port": "5191",
    "config.linkerd.io/default-inbound-policy": "cluster-authenticated",
    "config.linkerd.io/image-pull-policy": "Always",
    "config.linkerd.io/opaque-ports": "http,3306",
    "config.linkerd.io/proxy-admin-shutdown": "enabled",
    "config.linkerd.io/proxy-cpu-limit": "1",
    "config.linkerd.io/proxy-cpu-request": "100m",
    "config.linkerd.io/proxy-gid": "3001",
    "config.linkerd.io/proxy-image": "elsewhere/proxy",
    "config.linkerd.io/proxy-log-format": "json",
    "config.linkerd.io/proxy-log-level": "warn,linkerd=debug",
    "config.linkerd.io/proxy-memory-limit": "250Mi",
    "config.linkerd.io/proxy-memory-request": "20Mi",
    "config.linkerd.io/proxy-outbound-connect-timeout": "2s",
    "config.linkerd.io/proxy-uid": "3000",
    "config.linkerd.io/shutdown-grace-period": "10s",
    "config.linkerd.io/skip-inbound-ports": "9000-9010",
    "config.linkerd.io/skip-outbound-ports": "443",
    "config.linkerd.io/skip-subnets": "10.9.0.0/16",
    "config.alpha.linkerd.io/proxy-wait-before-exit-seconds": "5",
}


def with_annotations(pod: Json, annotations: dict[str, str]) -> Json:
    result = copy.deepcopy(pod)
    result["metadata"].setdefault("annotations", {}).update(annotations)
    return result


def injected(pod: Json, owner: Owner | None = None, config: InjectorConfig = CONFIG) -> Json:
    decision = decide(pod, ENABLED, config, native_supported=True, owner=owner)
    assert isinstance(decision, Inject), decision
    return decision.apply(pod, config)


WEB: Final = Owner("deployment", "web")
EVERYTHING: Final = msgspec.structs.replace(
    CONFIG,
    mesh_namespace="mesh",
    trust_domain="example.org",
    cluster_domain="k8s.example.org",
    proxy=msgspec.structs.replace(
        CONFIG.proxy,
        image_pull_secret="ours",
        ipv6=True,
        discovery_idle_timeout="5s",
        metrics_plaintext=True,
        inbound_policy="all-authenticated",
        tls_unauthenticated_ports="8080",
        identity_address="127.0.0.1:8080",
        destination_address="127.0.0.1:8086",
        extra_env={"MAX_IN_FLIGHT": "10", "LOG": "error", "POD_NAME": "fixed"},
        resources=Resources(memory_request="30Mi", ephemeral_storage_limit="1Gi"),
    ),
)
CNI: Final = msgspec.structs.replace(CONFIG, cni_enabled=True)
CASES: Final[dict[str, Json]] = {
    "bare": injected(BARE),
    "full-native": injected(FULL, WEB),
    "full-classic": injected(with_annotations(FULL, CLASSIC), WEB),
    "overrides-native": injected(with_annotations(FULL, OVERRIDES), WEB),
    "overrides-classic": injected(with_annotations(FULL, OVERRIDES | CLASSIC), WEB),
    "no-await-native": injected(with_annotations(BARE, {"config.linkerd.io/proxy-await": "disabled"})),
    "no-await-classic": injected(with_annotations(BARE, CLASSIC | {"config.linkerd.io/proxy-await": "disabled"})),
    "every-setting": injected(BARE, config=EVERYTHING),
    "cni-native": injected(FULL, WEB, CNI),
    "cni-classic": injected(with_annotations(FULL, OVERRIDES | CLASSIC), WEB, CNI),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_pod_is_as_it_was_agreed(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(CASES[name], indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


def test_no_golden_file_is_left_over() -> None:
    found = {path.stem for path in GOLDEN.glob("*.json")}
    assert found == set(CASES) | {
        f"control-plane-{name}" for name in ("identity", "destination", "injector", "prometheus")
    }


def test_the_argument_is_left_as_it_was() -> None:
    before = copy.deepcopy(FULL)
    injected(FULL)
    assert before == FULL


def env(pod: Json) -> dict[str, str]:
    proxy = [
        each
        for each in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        if each["name"] == labels.PROXY_CONTAINER
    ]
    return {each["name"].removeprefix("TULLE_PROXY_"): each.get("value", "") for each in proxy[0]["env"]}


def test_a_native_sidecar_starts_before_the_applications_own_init_containers() -> None:
    spec = CASES["full-native"]["spec"]
    assert [each["name"] for each in spec["initContainers"]] == ["linkerd-init", "linkerd-proxy", "migrate"]
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    hook = spec["initContainers"][1]["lifecycle"]["postStart"]["exec"]["command"]
    assert hook[:3] == ["python3", "-m", "proxy.wait_ready"]


def test_a_classic_sidecar_is_first_holds_the_others_and_is_not_the_default_container() -> None:
    pod = CASES["full-classic"]
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["migrate", "linkerd-init"]
    assert [each["name"] for each in pod["spec"]["containers"]] == ["linkerd-proxy", "app", "helper"]
    assert pod["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"][2] == "proxy.wait_ready"
    assert pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "app"
    assert "restartPolicy" not in pod["spec"]["containers"][0]


def test_with_a_cni_plugin_the_validator_comes_first_and_nobody_has_a_right() -> None:
    for name, expected in (
        ("cni-native", ["linkerd-network-validator", "linkerd-proxy", "migrate"]),
        ("cni-classic", ["linkerd-network-validator", "migrate"]),
    ):
        spec = CASES[name]["spec"]
        assert [each["name"] for each in spec["initContainers"]] == expected
        assert "linkerd-proxy-init-xtables-lock" not in [each["name"] for each in spec["volumes"]]
        ours = [each for each in [*spec["initContainers"], *spec["containers"]] if each["name"].startswith("linkerd-")]
        assert len(ours) == 2
        for security in (each["securityContext"] for each in ours):
            # Pod Security "restricted", field by field.
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] > 0
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_validator_is_another_user_than_the_proxy() -> None:
    for uid in (labels.PROXY_UID, 65534):
        settings = msgspec.structs.replace(CONFIG.proxy, uid=uid)
        assert validator_container(settings)["securityContext"]["runAsUser"] not in (0, uid)


def test_what_somebody_else_wrote_into_the_plugins_annotation_does_not_stay() -> None:
    forged = with_annotations(BARE, {labels.REDIRECT: "--proxy-uid 1000"})
    assert labels.REDIRECT not in injected(forged)["metadata"]["annotations"]
    written = injected(forged, config=CNI)["metadata"]["annotations"][labels.REDIRECT]
    assert written.startswith("--inbound-port 4143 ")
    assert "--proxy-uid 2102 " in written


def test_spaces_in_a_list_do_not_tear_the_annotation() -> None:
    spaced = with_annotations(BARE, {"config.linkerd.io/skip-subnets": "10.1.0.0/16, 10.2.0.0/16"})
    written = injected(spaced, config=CNI)["metadata"]["annotations"][labels.REDIRECT]
    assert "--skip-subnets 10.1.0.0/16,10.2.0.0/16 " in written


def test_early_containers_without_a_network_are_told_of() -> None:
    for annotations, told in ((CLASSIC, True), ({}, False)):
        decision = decide(with_annotations(FULL, annotations), ENABLED, CNI, native_supported=True)
        assert isinstance(decision, Inject)
        assert ("init_containers_without_network" in [each.reason for each in decision.notices]) is told
    plain = decide(with_annotations(FULL, CLASSIC), ENABLED, CONFIG, native_supported=True)
    assert isinstance(plain, Inject)
    assert plain.notices == ()


def test_injecting_twice_is_refused_by_the_decision() -> None:
    again = decide(CASES["bare"], ENABLED, CONFIG, native_supported=True)
    assert again.reason == "sidecar_already_exists"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seconds", "wait", "wanted", "expected"),
    [
        (None, 0, "2m", "28000ms"),
        (300, 0, "2m", "2m"),
        (30, 5, "2m", "23000ms"),
        (30, 0, "10s", "10s"),
        (0, 0, "2m", "1000ms"),
        (1, 0, "2m", "1000ms"),
    ],
)
def test_the_drain_ends_before_the_kubelet_kills(seconds: int | None, wait: int, wanted: str, expected: str) -> None:
    pod = copy.deepcopy(BARE)
    if seconds is not None:
        pod["spec"]["terminationGracePeriodSeconds"] = seconds
    settings = msgspec.structs.replace(CONFIG.proxy, shutdown_grace_period=wanted, wait_before_exit_seconds=wait)
    assert env(inject_pod(pod, CONFIG, settings, native=True))["SHUTDOWN_GRACE_PERIOD"] == expected


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, {}),
        ({"proxy-cpu-limit": "1"}, {}),
        ({"proxy-cpu-limit": "300m"}, {}),
        ({"proxy-cpu-limit": "2"}, {"CORES_MAX": "2"}),
        ({"proxy-cpu-limit": "1500m"}, {"CORES_MAX": "2"}),
        ({"proxy-cpu-limit": "0.004k"}, {"CORES_MAX": "4"}),
        ({"proxy-cpu-limit": "3e0"}, {"CORES_MAX": "3"}),
        ({"proxy-cpu-limit": "9e99"}, {"CORES_MAX": "4096"}),
        ({"proxy-cpu-ratio-limit": "0.5"}, {"CORES_MAX_RATIO": "0.5"}),
        ({"proxy-cpu-ratio-limit": "0.5", "proxy-cpu-limit": "2"}, {"CORES_MAX": "2"}),
    ],
)
def test_workers_follow_the_cpu_limit(annotations: dict[str, str], expected: dict[str, str]) -> None:
    pod = with_annotations(BARE, {f"config.linkerd.io/{name}": value for name, value in annotations.items()})
    assert {name: value for name, value in env(injected(pod)).items() if name.startswith("CORES")} == expected


def probed(**container: Any) -> list[Json]:
    return kubelet_probes(
        {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 80}], **container}]}
    )


def get(**words: Any) -> Json:
    return {"httpGet": words}


def test_probes_are_found_wherever_the_kubelet_makes_them() -> None:
    found = probed(
        livenessProbe=get(path="/live", port="http"),
        readinessProbe=get(path="/ready?full=1", port=81),
        startupProbe=get(port="82"),
        lifecycle={"postStart": get(path="hook", port=83), "preStop": {"exec": {"command": ["true"]}}},
    )
    assert found == [
        {"port": 80, "path": "/live"},
        {"port": 81, "path": "/ready?full=1"},
        {"port": 82, "path": "/"},
        {"port": 83, "path": "/hook"},
    ]


@pytest.mark.parametrize(
    "probe",
    [
        get(path="/", port="http", scheme="HTTPS"),
        get(path="/", port="http", host="example.com"),
        get(path="/", port="unknown"),
        {"tcpSocket": {"port": 80}},
        {"grpc": {"port": 80}},
        {"exec": {"command": ["true"]}},
        None,
    ],
)
def test_other_probes_open_no_door(probe: Json | None) -> None:
    assert probed(livenessProbe=probe) == []


def test_the_same_probe_twice_is_one() -> None:
    assert len(probed(livenessProbe=get(port=80, path="/h"), readinessProbe=get(port=80, path="/h"))) == 1


def test_an_owner_with_a_long_name_gets_no_label_rather_than_no_pod() -> None:
    pod = injected(BARE, Owner("deployment", "x" * 64))
    assert labels.CONTROL_PLANE_NAMESPACE in pod["metadata"]["labels"]
    assert not [key for key in pod["metadata"]["labels"] if key.startswith("linkerd.io/proxy-")]


def test_a_pull_secret_that_is_there_is_not_added_again() -> None:
    settings = msgspec.structs.replace(CONFIG.proxy, image_pull_secret="theirs")
    pod = inject_pod(FULL, CONFIG, settings, native=True)
    assert pod["spec"]["imagePullSecrets"] == [{"name": "theirs"}]


@pytest.mark.parametrize("name", list(CASES))
def test_no_container_may_do_more_than_it_needs(name: str) -> None:
    spec = CASES[name]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        if not container["name"].startswith("linkerd-"):
            continue
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["capabilities"]["drop"] == ["ALL"]
        added = security["capabilities"].get("add", [])
        if container["name"] == labels.INIT_CONTAINER:
            assert added == ["NET_ADMIN", "NET_RAW"]
        else:
            assert added == []
            assert security["runAsNonRoot"] is True
            assert security["runAsGroup"] != 0
