"""The mesh's resources under mocks: the graph's shape, and what every object must have."""

import datetime
import json
from typing import Any

import pulumi
import pytest

from components.deploy import wire
from components.trust import authority
from proxy.api import labels
from tests.iac import picture
from tests.iac.kit import ROOT, Graph, Registered, mesh_graph


@pytest.fixture(scope="module")
def local() -> Graph:
    return mesh_graph("local")


@pytest.fixture(scope="module")
def prod() -> Graph:
    return mesh_graph("prod")


def kubernetes(graph: Graph) -> list[Registered]:
    return [each for each in graph.resources if each.type.startswith("kubernetes:")]


def template(graph: Graph, name: str) -> dict[str, Any]:
    found: dict[str, Any] = graph.one("Deployment", name).inputs["spec"]["template"]
    return found


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    spec = pod["spec"]
    return next(c for c in [*spec.get("initContainers", []), *spec["containers"]] if c["name"] == name)


@pytest.mark.parametrize("preview", [False, True])
def test_the_program_runs_in_preview_and_for_real(preview: bool) -> None:
    assert len(mesh_graph("local", preview=preview).resources) > 40


def test_every_object_is_named_labelled_and_has_an_explicit_provider(local: Graph) -> None:
    for each in kubernetes(local):
        assert each.inputs["metadata"]["name"], each.name
        assert each.inputs["metadata"]["labels"][labels.PART_OF] == "tulle", each.name
        assert each.inputs["metadata"]["labels"][labels.MANAGED_BY] == "tulle", each.name
        assert "::tulle-kubernetes::" in each.provider, each.name


def test_the_provider_is_told_the_cluster_and_to_change_in_place(local: Graph) -> None:
    (provider,) = [each for each in local.resources if each.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["context"] == "some"
    assert provider.inputs["kubeconfig"] == "/state/kubeconfig"
    for key in ("enableServerSideApply", "enableSecretMutable", "enableConfigMapMutable"):
        assert provider.inputs[key] == "true"


def test_every_resource_has_a_parent_and_every_component_finishes(local: Graph) -> None:
    for each in local.resources:
        if each.type not in ("pulumi:pulumi:Stack", "pulumi:providers:kubernetes", "tulle:index:Mesh"):
            assert not each.parent.split("::")[2].endswith("pulumi:pulumi:Stack"), each.name
    components = {urn for urn in local.urns if urn.split("::")[2].split("$")[-1].startswith("tulle:index:")}
    assert components
    assert components <= local.finished


def test_no_two_resources_share_a_name(local: Graph) -> None:
    names = [(each.type, each.name) for each in local.resources]
    assert len(names) == len(set(names))


def test_no_private_key_is_an_input_of_anything(local: Graph) -> None:
    text = json.dumps([each.raw for each in local.resources])
    assert "PRIVATE KEY" not in text
    assert not local.of("Secret")
    for kind in ("TrustAnchor", "Issuer"):
        (made,) = local.of(kind)
        assert not any(wire.marked_secret(value) for value in made.raw.values()), "nothing in it needs hiding"


def test_a_dynamic_provider_is_pickled_by_reference(local: Graph) -> None:
    for each in local.resources:
        if "__provider" in each.inputs:
            assert len(each.inputs["__provider"]) < 400, each.name


def test_every_container_is_hardened(local: Graph, prod: Graph) -> None:
    for graph in (local, prod):
        for deployment in graph.of("Deployment"):
            pod = deployment.inputs["spec"]["template"]["spec"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["securityContext"]["runAsUser"] == labels.CONTROLLER_UID
            assert pod["automountServiceAccountToken"] is False
            for each in pod["containers"]:
                security = each["securityContext"]
                assert security["runAsNonRoot"] is True, each["name"]
                assert security["readOnlyRootFilesystem"] is True, each["name"]
                assert security["allowPrivilegeEscalation"] is False, each["name"]
                assert security["capabilities"] == {"drop": ["ALL"]}, each["name"]
                assert each["resources"]["requests"]["memory"], each["name"]
                assert each["resources"]["limits"]["memory"], each["name"]


@pytest.mark.parametrize("component", ["identity", "destination", "injector", "prometheus"])
def test_control_plane_pods_carry_our_own_proxy(local: Graph, component: str) -> None:
    pod = template(local, component)
    assert pod["metadata"]["labels"][labels.CONTROL_PLANE_NAMESPACE] == "tulle"
    assert pod["spec"]["serviceAccountName"] == component
    proxy = container(pod, labels.PROXY_CONTAINER)
    assert proxy["securityContext"]["runAsUser"] == labels.PROXY_UID
    native = any(c["name"] == labels.PROXY_CONTAINER for c in pod["spec"]["initContainers"])
    assert native is (component != "identity")
    mounts = [mount["name"] for mount in proxy["volumeMounts"]]
    assert "kube-api-access" not in mounts
    assert "issuer" not in mounts


def test_only_identity_mounts_the_issuer(local: Graph) -> None:
    mounting = [
        each.inputs["metadata"]["name"]
        for each in local.of("Deployment")
        if any(v.get("secret") for v in each.inputs["spec"]["template"]["spec"].get("volumes", []))
    ]
    assert mounting == ["identity"]


def test_webhooks_fail_only_where_a_namespace_asks_for_it(local: Graph) -> None:
    webhooks = {
        each["name"]: each for each in local.one("MutatingWebhookConfiguration", "tulle-injector").inputs["webhooks"]
    }
    assert {each["failurePolicy"] for each in webhooks.values()} == {"Fail", "Ignore"}
    for each in webhooks.values():
        assert "caBundle" not in each["clientConfig"], "the injector owns that field"
        rules = {rule["key"]: rule for rule in each["namespaceSelector"]["matchExpressions"]}
        wanted = "In" if each["failurePolicy"] == "Fail" else "NotIn"
        assert rules[labels.MESHED_NAMESPACE]["operator"] == wanted
        assert rules[labels.ADMISSION_EXEMPT] == {
            "key": labels.ADMISSION_EXEMPT,
            "operator": "NotIn",
            "values": ["disabled"],
        }
        assert rules["kubernetes.io/metadata.name"]["values"] == ["kube-system", "tulle", "tulle-trust"]
        assert each["sideEffects"] == "NoneOnDryRun"


def test_the_meshs_own_namespaces_are_exempt(local: Graph) -> None:
    for name in ("tulle", "tulle-trust"):
        assert local.one("Namespace", name).inputs["metadata"]["labels"][labels.ADMISSION_EXEMPT] == "disabled"


def test_meshed_workloads_wait_for_injection_and_the_others_do_not(local: Graph) -> None:
    def waits(each: Registered) -> bool:
        return any(urn.endswith("::tulle-demo-ready") for urn in each.depends)

    meshed = [each for each in local.of("Deployment") if each.inputs["metadata"]["namespace"] == "demo"]
    assert len(meshed) == 5
    assert all(waits(each) for each in meshed)
    (outside,) = [each for each in local.of("Deployment") if each.inputs["metadata"]["namespace"] == "demo-unmeshed"]
    assert not waits(outside)
    namespace = local.one("Namespace", "demo").inputs["metadata"]
    assert namespace["annotations"] == {labels.INJECT: "enabled"}
    assert namespace["labels"][labels.MESHED_NAMESPACE] == "enabled"
    assert local.one("Namespace", "demo-unmeshed").inputs["metadata"].get("annotations") is None


def test_webhooks_are_declared_after_the_injector(local: Graph) -> None:
    declared = local.one("MutatingWebhookConfiguration", "tulle-injector")
    assert any(urn.endswith("injector-deployment") for urn in declared.depends)


@pytest.mark.parametrize("component", ["identity", "destination", "injector", "prometheus"])
def test_control_plane_pods_start_after_issuer_and_bundle(local: Graph, component: str) -> None:
    waits = local.one("Deployment", component).depends
    for needed in ("tulle-authority-issuer", "tulle-authority-bundle"):
        assert any(urn.endswith(f"::{needed}") for urn in waits), needed
    assert any(urn.endswith("-account") for urn in waits)


def test_production_has_three_of_each_apart_and_a_budget(prod: Graph) -> None:
    for component in ("identity", "destination", "injector"):
        spec = prod.one("Deployment", component).inputs["spec"]
        assert spec["replicas"] == 3
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        affinity = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
        assert affinity["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"] == "kubernetes.io/hostname"
        assert prod.one("PodDisruptionBudget", component).inputs["spec"]["maxUnavailable"] == 1
    assert prod.one("Deployment", "prometheus").inputs["spec"]["replicas"] == 1
    (anchor,) = prod.of("TrustAnchor")
    assert anchor.protect
    assert not [each for each in prod.of("Namespace") if each.inputs["metadata"]["name"].startswith("demo")]


def test_local_has_one_of_each_and_protects_nothing(local: Graph) -> None:
    assert not local.of("PodDisruptionBudget")
    assert not [each for each in local.resources if each.protect]
    for each in local.of("Deployment"):
        if each.inputs["metadata"]["namespace"] == "tulle":
            assert each.inputs["spec"]["replicas"] == 1


def test_the_demo_has_two_meshed_tiers_a_tcp_pair_and_a_client_outside(local: Graph) -> None:
    replicas = {
        each.inputs["metadata"]["name"]: each.inputs["spec"]["replicas"]
        for each in local.of("Deployment")
        if each.inputs["metadata"]["namespace"] == "demo"
    }
    assert replicas == {"api": 3, "web": 2, "traffic": 1, "tcp-server": 1, "tcp-client": 1}
    for each in local.of("Deployment"):
        if each.inputs["metadata"]["namespace"].startswith("demo"):
            (container,) = each.inputs["spec"]["template"]["spec"]["containers"]
            assert "lifecycle" not in container, "no sleep before a stop hides what the proxy has to do"
    assert not mesh_graph("dev").of("InjectionReady")


def test_an_external_prometheus_means_none_here() -> None:
    graph = mesh_graph("local", prometheus_url="http://prometheus.monitoring:9090")
    assert not [each for each in graph.of("Deployment") if each.inputs["metadata"]["name"] == "prometheus"]


def test_prometheus_is_configured_from_settings() -> None:
    graph = mesh_graph("local", prometheus_retention="3h", prometheus_scrapeInterval="7s")
    data = graph.one("ConfigMap", "prometheus-config").inputs["data"]
    config = json.loads(data["prometheus.yml"])
    assert config["global"]["scrape_interval"] == "7s"
    assert config["global"]["scrape_timeout"] == "7s"
    assert {job["job_name"] for job in config["scrape_configs"]} == {"linkerd-proxy", "tulle-controllers", "prometheus"}
    command = container(template(graph, "prometheus"), "prometheus")["command"]
    assert "--storage.tsdb.retention.time=3h" in command
    alerts = [rule.get("alert") for group in json.loads(data["rules.yml"])["groups"] for rule in group["rules"]]
    assert "TulleCertificateExpiring" in alerts
    for name in ("TulleIssuerExpiring", "TulleAnchorExpiring"):
        assert alerts.count(name) == 3


def test_one_changed_setting_rolls_only_what_reads_it(local: Graph) -> None:
    changed = mesh_graph("local", identity_leafLifetime="1h")
    before = {each.name: each.inputs for each in kubernetes(local)}
    after = {each.name: each.inputs for each in kubernetes(changed)}
    assert [name for name in before if before[name] != after[name]] == ["tulle-control-plane-identity-deployment"]


def test_the_keeper_alone_may_read_the_trust_namespace(local: Graph) -> None:
    there = [
        each.inputs
        for each in [*local.of("Role"), *local.of("RoleBinding")]
        if each.inputs["metadata"]["namespace"] == "tulle-trust"
    ]
    assert [each["kind"] for each in there] == ["Role", "RoleBinding"]
    assert there[0]["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [labels.ANCHOR_SECRET], "verbs": ["get"]}
    ]
    assert there[1]["subjects"] == [{"kind": "ServiceAccount", "name": "trust", "namespace": "tulle-trust"}]
    for role in local.of("ClusterRole"):
        for rule in role.inputs["rules"]:
            assert "secrets" not in rule["resources"], role.name
            assert "*" not in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]


def test_a_brought_issuer_that_does_not_match_is_refused_before_anything_is_registered() -> None:
    with pytest.raises(pulumi.RunError, match=r"trust.issuerCertificate is set, but trust.issuerKey is not"):
        mesh_graph("local", trust_issuerCertificate="x")


def test_the_keeper_has_no_proxy_and_follows_the_settings(local: Graph) -> None:
    pod = template(local, "trust")
    assert [each["name"] for each in pod["spec"]["containers"]] == ["trust"]
    assert "initContainers" not in pod["spec"]
    assert labels.CONTROL_PLANE_NAMESPACE not in pod["metadata"]["labels"]
    shorter = mesh_graph("local", trust_issuerLifetime="48h")
    assert "--issuer-lifetime=48h" in container(template(shorter, "trust"), "trust")["command"]


def test_a_brought_issuer_has_no_keeper() -> None:
    now = datetime.datetime.now(datetime.UTC)
    anchor = authority.make_anchor("tulle", "cluster.local", now)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", now)
    graph = mesh_graph(
        "local",
        trust_issuerCertificate=issuer.certificate,
        trust_issuerKey=issuer.key,
        trust_bundle=anchor.certificate,
    )
    assert not [each for each in graph.of("Deployment") if each.inputs["metadata"]["name"] == "trust"]


def test_extra_meshed_namespaces_are_made() -> None:
    graph = mesh_graph("local", meshedNamespaces='["shop"]')
    made = graph.one("Namespace", "shop").inputs["metadata"]
    assert made["labels"][labels.MESHED_NAMESPACE] == "enabled"


def test_the_picture_in_the_readme_is_of_this_graph(local: Graph) -> None:
    assert picture.FILE.read_text() == picture.picture(local), "draw it anew: python -m tests.iac.picture"
    assert f"({picture.FILE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
