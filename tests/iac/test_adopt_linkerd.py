"""The plan of a move from Linkerd: by value, on an API server in memory, and on the local cluster with its kinds."""

import base64
import datetime
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.cli import linkerd
from components.cli.main import cli
from components.cli.moving import INSTEAD, Certificate, Installation, Namespace, Plan, plan
from components.deploy import project
from components.deploy.refs import Ref
from components.trust import authority
from components.trust.authority import KeyPair
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.rest import RestApi, serving, unguarded
from tests.kit.cluster import Kube

NOW = datetime.datetime.now(datetime.UTC)
ANCHOR = authority.make_anchor("linkerd", "mesh.example", NOW)
ISSUER = authority.make_issuer(ANCHOR, "linkerd", "mesh.example", NOW)
DEFAULTS = {key: each.get("default") for key, each in project.load(ROOT).schema.items()}
VALUES: dict[str, Any] = {
    "linkerdVersion": "stable-2.14.10",
    "identityTrustDomain": "mesh.example",
    "clusterDomain": "cluster.local",
    "controllerReplicas": 3,
    "cniEnabled": True,
    "identity": {"issuer": {"issuanceLifetime": "24h0m0s"}},
    "proxy": {
        "defaultInboundPolicy": "cluster-authenticated",
        "logLevel": "warn,linkerd=debug,hickory=error",
        "opaquePorts": "25,3306",
        "resources": {"cpu": {"request": "100m", "limit": "1"}, "memory": {"request": "20Mi", "limit": "250Mi"}},
    },
    "proxyInit": {"ignoreInboundPorts": "4567,4568", "ignoreOutboundPorts": "9-1"},
}


def installation(**more: Any) -> Installation:
    given = {
        "namespace": "linkerd",
        "version": "stable-2.14.10",
        "values": VALUES,
        "anchors": (Certificate("CN=root", "ab", "2030-01-01T00:00:00+00:00"),),
        "issuer": None,
        "issuer_kept_by": "",
        "namespaces": (),
        "objects": (),
        "extensions": (),
    }
    return Installation(**{**given, **more})


def remarks(made: Plan) -> dict[str, str]:
    return {each.what: each.instead for each in made.unmoved}


def test_values_that_differ_become_settings_and_the_rest_is_named() -> None:
    made = plan(installation(), "linkerd", DEFAULTS)
    assert made.settings == {
        "trustDomain": "mesh.example",
        "replicas": 3,
        "proxy.inboundPolicy": "cluster-authenticated",
        "proxy.logLevel": "debug",
        "proxy.opaquePorts": "25,3306",
        "proxy.cpuRequest": "100m",
        "proxy.memoryRequest": "20Mi",
        "proxy.memoryLimit": "250Mi",
    }
    found = remarks(made)
    assert "must be ports" in found["proxyInit.ignoreOutboundPorts: 9-1"]
    assert {"cniEnabled: True", "proxy.resources.cpu.limit: 1"} <= set(found)
    assert [each.what for each in made.warnings] == ["proxy.defaultInboundPolicy is cluster-authenticated"]


def test_the_stack_file_is_one_that_this_project_accepts(tmp_path: Path) -> None:
    namespaces = (Namespace("shop", "enabled", {}, 4),)
    made = plan(installation(namespaces=namespaces), "linkerd", DEFAULTS)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.linkerd.yaml").write_text(made.stack_file)
    config = project.load(tmp_path).config("linkerd", {}).values
    assert config["tulle:adoptedNamespaces"] == '["shop"]'
    assert config["tulle:replicas"] == "3"
    from components.deploy.refs import Target
    from components.settings import parse

    assert parse(config, Target("k", "c"))["names"]["trust_domain"] == "mesh.example"
    assert "kubectl rollout restart deployment,statefulset,daemonset -n shop" in made.steps


def test_namespaces_that_do_not_move_by_themselves_are_named() -> None:
    namespaces = (
        Namespace("edge", "ingress", {}, 2),
        Namespace("loose", "", {}, 3),
        Namespace("shut", "enabled", {"default-inbound-policy": "deny", "close-wait-timeout": "1s"}, 1),
    )
    made = plan(installation(namespaces=namespaces, values={}), "linkerd", DEFAULTS)
    assert made.settings == {"adoptedNamespaces": ["shut"]}
    found = remarks(made)
    assert "namespace edge: linkerd.io/inject: ingress" in found
    assert "namespace loose: 3 meshed pods, but the namespace is not annotated" in found
    assert "namespace shut: config.linkerd.io/close-wait-timeout" in found
    assert [each.what for each in made.warnings] == ["namespace shut: default-inbound-policy is deny"]


def test_every_kind_that_is_looked_for_has_a_word_on_what_stands_in_for_it() -> None:
    assert {kind for _, kind, _ in linkerd.KINDS} == set(INSTEAD)


def secret(key: KeyPair) -> dict[str, Any]:
    texts = {"crt.pem": key.certificate, "key.pem": key.key}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": linkerd.ISSUER}, "data": data}


def config_maps() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "linkerd-config"},
            "data": {"values": yaml.safe_dump(VALUES)},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "linkerd-identity-trust-roots"},
            "data": {"ca-bundle.crt": ANCHOR.certificate},
        },
    ]


def webhooks() -> dict[str, Any]:
    expression = {"key": "config.linkerd.io/admission-webhooks", "operator": "NotIn", "values": ["disabled"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": linkerd.WEBHOOKS.name},
        "webhooks": [
            {
                "name": "linkerd-proxy-injector.linkerd.io",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "none", "namespace": "none"}},
                "sideEffects": "None",
                "failurePolicy": "Ignore",
                "namespaceSelector": {"matchExpressions": [expression]},
                # Of a group that nobody serves: it must not come between anybody and the cluster.
                "rules": [
                    {"operations": ["CREATE"], "apiGroups": ["none.example"], "apiVersions": ["v1"], "resources": ["x"]}
                ],
            }
        ],
    }


def expressions(live: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert live is not None
    found: list[dict[str, Any]] = live["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    return found


def invoke(folder: Path, kubeconfig: str, context: str, *more: str) -> tuple[int, str]:
    where = ["--kubeconfig", kubeconfig, "--context", context, "--cwd", str(folder)]
    result = CliRunner().invoke(cli, ["adopt-linkerd", *where, *more])
    return result.exit_code, result.output


def no_key(text: str) -> None:
    body = "".join(ISSUER.key.splitlines()[1:-1])
    assert "PRIVATE KEY" not in text
    assert body[:40] not in text
    assert base64.b64encode(ISSUER.key.encode()).decode()[:60] not in text


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[RestApi, str, str]]:
    unguarded(tmp_path)
    with serving(tmp_path) as (made, target):
        for namespace in ("linkerd", "shop"):
            marks = {labels.INJECT: "enabled"} if namespace == "shop" else {}
            made.put("namespaces", {"kind": "Namespace", "metadata": {"name": namespace, "annotations": marks}})
        for each in [*config_maps(), secret(ISSUER)]:
            made.put("secrets" if each["kind"] == "Secret" else "configmaps", each, "linkerd")
        made.put("mutatingwebhookconfigurations", webhooks())
        made.put(
            "pods",
            {"kind": "Pod", "metadata": {"name": "web", "labels": {labels.CONTROL_PLANE_NAMESPACE: "linkerd"}}},
            "shop",
        )
        yield made, target.kubeconfig, target.context


def test_nothing_changes_without_yes(api: tuple[RestApi, str, str], tmp_path: Path) -> None:
    made, kubeconfig, context = api
    before = sorted(tmp_path.iterdir())
    for output in ("table", "json"):
        code, text = invoke(tmp_path, kubeconfig, context, "-o", output)
        assert code == 0, text
        no_key(text)
    answer = json.loads(text)
    assert answer["changed"] == []
    assert answer["installation"]["issuer"]["fingerprint"] == authority.fingerprint(ISSUER.certificate)
    assert [each["name"] for each in answer["installation"]["namespaces"]] == ["shop"]
    assert answer["plan"]["settings"]["trustDomain"] == "mesh.example"
    assert made.writes == []
    assert sorted(tmp_path.iterdir()) == before


def test_yes_writes_the_stack_and_makes_room_once(api: tuple[RestApi, str, str], tmp_path: Path) -> None:
    made, kubeconfig, context = api
    code, text = invoke(tmp_path, kubeconfig, context, "--yes")
    assert code == 0, text
    assert made.writes == [("PUT", f"mutatingwebhookconfigurations//{linkerd.WEBHOOKS.name}")]
    live = made.get("mutatingwebhookconfigurations", linkerd.WEBHOOKS.name)
    assert expressions(live)[1:] == [linkerd.LEAVE]
    no_key(text + (tmp_path / "Pulumi.linkerd.yaml").read_text())
    code, text = invoke(tmp_path, kubeconfig, context, "--yes")
    assert code == 0, text
    assert len(made.writes) == 1
    (tmp_path / "Pulumi.linkerd.yaml").write_text("config: {}\n")
    code, text = invoke(tmp_path, kubeconfig, context, "--yes")
    assert code == 1
    assert "is there already, with other settings" in text


def test_where_there_is_no_linkerd_it_says_so(tmp_path: Path) -> None:
    unguarded(tmp_path)
    with serving(tmp_path) as (_, target):
        code, text = invoke(tmp_path, target.kubeconfig, target.context)
        assert code == 1
        assert "no ConfigMap linkerd-config" in text


def crd(group: str, version: str, kind: str, plural: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


CRDS = (
    ("policy.linkerd.io", "v1beta3", "Server", "servers"),
    ("policy.linkerd.io", "v1alpha1", "AuthorizationPolicy", "authorizationpolicies"),
    ("linkerd.io", "v1alpha2", "ServiceProfile", "serviceprofiles"),
)


@pytest.mark.e2e
@pytest.mark.timeout(200)
def test_a_linkerd_on_the_real_cluster_is_read_with_its_policies(kube: Kube, tmp_path: Path) -> None:
    unguarded(tmp_path)
    suffix = secrets.token_hex(3)
    mesh, shop = f"package-linkerd-{suffix}", f"package-shop-{suffix}"
    definitions = [crd(*each) for each in CRDS]
    mine = [each for each in definitions if kube.get(Ref.of(each)) is None]
    there = kube.get(linkerd.WEBHOOKS)
    assert there is None, "somebody else's Linkerd is on this cluster"
    try:
        kube.put(*mine)
        for name, marks in ((mesh, {}), (shop, {labels.INJECT: "enabled"})):
            kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": marks}})
        for each in [*config_maps(), secret(ISSUER)]:
            kube.put({**each, "metadata": {**each["metadata"], "namespace": mesh}})
        kube.put(webhooks())
        for group, version, kind, _ in CRDS:
            ready(kube, f"{group}/{version}", kind)
            kube.put(
                {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": "web", "namespace": shop}}
            )
        where = (kube.target.kubeconfig, kube.target.context, "--linkerd-namespace", mesh)
        code, text = invoke(tmp_path, *where, "-o", "json")
        assert code == 0, text
        no_key(text)
        answer = json.loads(text)
        found = [each for each in answer["installation"]["objects"] if each[1] == shop]
        assert found == [[kind, shop, "web"] for kind in sorted(each[2] for each in CRDS)]
        assert shop in answer["plan"]["settings"]["adoptedNamespaces"]
        assert len(expressions(kube.get(linkerd.WEBHOOKS))) == 1
        code, text = invoke(tmp_path, *where, "--yes")
        assert code == 0, text
        assert f"Server {shop}/web" in text
        assert expressions(kube.get(linkerd.WEBHOOKS))[1:] == [linkerd.LEAVE]
    finally:
        kube.delete(linkerd.WEBHOOKS)
        for name in (mesh, shop):
            kube.remove_namespace(name)
        for name in (mesh, shop):
            kube.gone(name)
        for each in mine:
            kube.delete(Ref.of(each))


def ready(kube: Kube, api_version: str, kind: str) -> None:
    """Wait until the API server serves a kind."""
    from components.deploy.errors import ClusterError
    from tests.kit.waiting import until

    def served() -> bool:
        try:
            return kube.namespaced(api_version, kind)
        except ClusterError:
            return False

    until(f"{api_version} {kind} is served", served, 30, 0.5)
