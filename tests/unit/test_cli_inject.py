"""`tulle inject` and `tulle uninject`: what changes in a YAML stream, and that nothing else does."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from components.cli import documents
from components.cli.inject import injector_configs, supports_native
from components.cli.main import cli
from components.injector.config import InjectorConfig, ProxySettings, encode_config
from components.injector.decide import Inject, Namespace, decide
from components.injector.patch import Owner
from proxy.api import labels

DEPLOYMENT = """\
# a comment that dies only with a change
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web}]
"""
SERVICE = """\
apiVersion: v1
kind: Service   # kept as it is
metadata: {name: web}
spec: {ports: [{port: 80}]}
"""
CRON_JOB = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec: {schedule: "0 1 * * *", jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: c}]}}}}}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: lone}
spec: {containers: [{name: c, image: c}]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_bytes(encode_config(InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1", version="1"))))
    return file


def run(*args: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, list(args), input=stdin)


def loaded(text: str) -> list[Any]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def test_a_deployment_is_annotated_and_its_neighbours_stay_byte_for_byte() -> None:
    result = run("inject", stdin=f"{SERVICE}---\n{DEPLOYMENT}---\n{SERVICE}")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{SERVICE}---\n")
    assert result.stdout.endswith(f"---\n{SERVICE}")
    _, deployment, _ = loaded(result.stdout)
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"linkerd.io/inject": "enabled"}
    assert "deployment/web: annotated" in result.stderr
    assert "service/web: skipped" in result.stderr


def test_a_second_injection_changes_nothing() -> None:
    once = run("inject", stdin=DEPLOYMENT).stdout
    twice = run("inject", stdin=once)
    assert twice.stdout == once
    assert "already annotated" in twice.stderr


def test_uninject_gives_back_what_was_injected() -> None:
    for stream in (DEPLOYMENT, CRON_JOB, POD):
        injected = run("inject", stdin=stream).stdout
        back = loaded(run("uninject", stdin=injected).stdout)[0]
        original = loaded(stream)[0]
        assert documents.template_of(back)["spec"] == documents.template_of(original)["spec"]  # type: ignore[index]
        assert "inject" not in json.dumps(back)


def test_a_namespace_gets_the_label_that_the_webhook_selects() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n"
    metadata = loaded(run("inject", stdin=namespace).stdout)[0]["metadata"]
    assert metadata["annotations"] == {"linkerd.io/inject": "enabled"}
    assert metadata["labels"] == {"tulle.io/meshed": "enabled"}


def test_host_network_is_skipped_with_the_reason() -> None:
    stream = POD.replace("spec: {", "spec: {hostNetwork: true, ")
    result = run("inject", stdin=stream)
    assert result.stdout == stream
    assert "hostNetwork" in result.stderr


def test_lists_are_changed_inside() -> None:
    items = [yaml.safe_load(SERVICE), yaml.safe_load(DEPLOYMENT)]
    result = run("inject", stdin=yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    service, deployment = loaded(result.stdout)[0]["items"]
    assert service == items[0]
    assert "annotations" in deployment["spec"]["template"]["metadata"]


def test_manual_gives_the_webhooks_pod(config: Path) -> None:
    result = run("inject", "--manual", "--config", str(config), stdin=DEPLOYMENT)
    assert result.exit_code == 0, result.output
    template = loaded(result.stdout)[0]["spec"]["template"]
    settings = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1", version="1"))
    original = yaml.safe_load(DEPLOYMENT)["spec"]["template"]
    namespace = Namespace("demo", {"linkerd.io/inject": "enabled"}, {})
    decision = decide(original, namespace, settings, native_supported=True, owner=Owner("deployment", "web"))
    assert isinstance(decision, Inject)
    assert template == decision.apply(original, settings)


def test_uninject_takes_a_manual_proxy_out(config: Path) -> None:
    for stream in (DEPLOYMENT, POD):
        injected = run("inject", "--manual", "--config", str(config), stdin=stream).stdout
        assert "linkerd-proxy" in injected
        back = loaded(run("uninject", stdin=injected).stdout)[0]
        assert documents.template_of(back)["spec"] == documents.template_of(loaded(stream)[0])["spec"]  # type: ignore[index]


def test_uninject_takes_out_what_stands_for_the_cni_plugin(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(encode_config(InjectorConfig(proxy=ProxySettings(image="proxy:1"), cni_enabled=True)))
    injected = run("inject", "--manual", "--config", str(config), stdin=POD).stdout
    assert "linkerd-network-validator" in injected
    assert "NET_ADMIN" not in injected
    assert "tulle.io/redirect: --inbound-port 4143 " in injected
    back = run("uninject", stdin=injected).stdout
    assert loaded(back)[0]["spec"] == loaded(POD)[0]["spec"]
    assert "tulle.io/redirect" not in back


def test_manual_refuses_what_the_webhook_refuses(config: Path) -> None:
    stream = POD.replace("metadata: {", 'metadata: {annotations: {config.linkerd.io/proxy-log-level: "loud"}, ')
    result = run("inject", "--manual", "--config", str(config), stdin=stream)
    assert result.exit_code == 1
    assert result.stdout == stream
    assert "refused" in result.stderr
    assert "loud" in result.stderr


def test_json_output_says_what_was_done() -> None:
    outcome = json.loads(run("inject", "-o", "json", stdin=f"{POD}---\n{SERVICE}").stdout)
    assert outcome == [
        {"object": "pod/lone", "changed": True, "message": "annotated"},
        {"object": "service/web", "changed": False, "message": "skipped: it has no pods"},
    ]


def test_files_are_joined_as_documents(tmp_path: Path) -> None:
    for name, content in (("a.yaml", POD.rstrip()), ("b.yaml", SERVICE)):
        (tmp_path / name).write_text(content)
    result = run("inject", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert [document["kind"] for document in loaded(result.stdout)] == ["Pod", "Service"]


def test_broken_yaml_is_named_by_document() -> None:
    result = run("inject", stdin=f"{POD}---\na: [\n")
    assert result.exit_code == 1
    assert "document 2 is not YAML" in result.stderr


def test_a_missing_file_is_named() -> None:
    result = run("inject", "/nowhere.yaml")
    assert result.exit_code == 1
    assert "/nowhere.yaml" in result.stderr


@pytest.mark.parametrize(
    "text", ["", "---\n", "# only a comment\n", "--- # x\na: 1\n---\n\n---\nb: 2", "a: |\n  --- in\n"]
)
def test_splitting_loses_nothing(text: str) -> None:
    assert "".join(documents.split(text)) == text
    assert documents.rewrite(text, documents.annotate) == (text, [])


@pytest.mark.parametrize(
    ("version", "native"),
    [
        ({"major": "1", "minor": "34"}, True),
        ({"major": "1", "minor": "28+"}, False),
        ({"major": "1", "minor": "29-gke"}, True),
        ({}, False),
    ],
)
def test_native_sidecars_need_1_29(version: dict[str, str], native: bool) -> None:
    assert supports_native(version) is native


def test_the_injectors_configurations_are_found_by_their_key() -> None:
    class Cluster:
        def list(self, *_: str) -> list[Any]:
            own: dict[str, Any] = {"metadata": {"labels": {}}, "data": {"config.json": "{}"}}
            canary = {"metadata": {"labels": {labels.REVISION: "canary"}}, "data": {"config.json": "{ }"}}
            return [{"metadata": {}, "data": {"other": "x"}}, {"metadata": {}}, canary, own]

    assert injector_configs(Cluster(), "tulle") == {"": b"{}", "canary": b"{ }"}
