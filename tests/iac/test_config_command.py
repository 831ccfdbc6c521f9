"""`tulle config`: keys are explained from the schema, and what nodes must offer follows from the settings."""

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.cli.config import config
from components.cli.main import cli
from components.requirements import node_requirements
from proxy.api import labels
from tests.iac.kit import ROOT, arguments

ROLE = ROOT / "ansible" / "roles" / "node" / "vars" / "main.yml"


def run(*words: str) -> str:
    result = CliRunner().invoke(config, words)
    assert result.exit_code == 0, result.output
    return result.output


def asked(**overrides: str) -> dict[str, Any]:
    return node_requirements(arguments("local", **overrides))


def test_every_key_is_listed_with_its_sentence() -> None:
    listed = json.loads(run("explain", "-o", "json"))
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert [entry["key"] for entry in listed] == list(declared)
    for entry in listed:
        assert entry["description"] == declared[entry["key"]]["description"]
        assert entry["allowed"], entry["key"]
    table = run("explain")
    assert all(key in table for key in declared)


def test_one_key_is_explained_with_what_it_allows_and_what_a_stack_sets() -> None:
    text = run("explain", "replicas", "--stack", "prod")
    assert "an integer from 1 to 9" in text
    assert "Default: 1" in text
    assert "In this stack: 3" in text


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["config", "explain", "proxy.loglevel"])
    assert result.exit_code == 1
    assert "Did you mean 'proxy.logLevel'" in result.output


def test_a_secret_is_never_shown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.deploy import project

    monkeypatch.setattr(project, "_decrypt", lambda *_: "correct-horse-battery")
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  tulle:trust.issuerKey: {secure: v1:a:b}\n")
    text = run("explain", "--stack", "x", "--cwd", str(tmp_path)) + run(
        "explain", "trust.issuerKey", "--stack", "x", "--cwd", str(tmp_path), "-o", "json"
    )
    assert "[secret]" in text
    assert "correct-horse" not in text


def test_kernel_features_are_those_that_the_role_tries() -> None:
    role = yaml.safe_load(ROLE.read_text())
    known = {probe["name"] for probe in role["node_probes"]}
    features = {each["feature"] for each in asked()["kernel"]}
    assert set(role["node_needed"]) <= features <= known
    assert {each["feature"] for each in asked(proxy_ipv6="true")["kernel"]} - features == {"ip6tables_redirect"}


def test_ports_follow_the_settings() -> None:
    def metrics(found: dict[str, Any]) -> list[str]:
        return [each["from"] for each in found["ports"] if each["why"].startswith("metrics of proxies")]

    assert metrics(asked()) == ["tulle/prometheus"]
    assert metrics(asked(prometheus_enabled="false")) == []
    assert metrics(asked(prometheus_url="http://p.monitoring:9090")) == ["http://p.monitoring:9090"]
    webhook = [each for each in asked(meshNamespace="mesh")["ports"] if each["from"] == "API server"]
    assert [(each["port"], each["to"]) for each in webhook] == [(labels.INJECTOR_PORT, "mesh/injector")]


def test_sidecar_and_resources_follow_the_settings() -> None:
    assert asked(proxy_sidecar="native")["kubernetes"]["minimum"] == "1.29"
    assert asked(proxy_sidecar="classic")["kubernetes"]["minimum"] == ""
    assert asked(proxy_memoryLimit="1Gi")["pods"]["memoryLimit"] == "1Gi"


def test_with_a_cni_plugin_pods_need_no_right_and_nodes_have_folders() -> None:
    assert asked()["pods"]["capabilities"] == ["NET_ADMIN", "NET_RAW"]
    assert asked()["paths"] == []
    found = asked(cni_enabled="true")
    assert found["pods"]["capabilities"] == []
    assert [each["path"] for each in found["paths"]] == ["/opt/cni/bin", "/etc/cni/net.d"]
    text = run("node-requirements", "--stack", "prod", "-c", "cni.enabled=true")
    assert "Paths on nodes: /opt/cni/bin, /etc/cni/net.d" in text
    assert "Meshed pods: no capabilities;" in text


def test_node_requirements_need_no_cluster() -> None:
    found = json.loads(run("node-requirements", "--stack", "prod", "-o", "json"))
    assert found == json.loads(json.dumps(node_requirements(arguments("prod"))))
    text = run("node-requirements", "--stack", "prod", "-c", "proxy.ipv6=true")
    assert "ip6tables_redirect" in text
    assert "4143" in text
