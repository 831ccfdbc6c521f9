"""The component package: its schema, its arguments beside the config's keys, and what its components declare."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.provider.experimental.component import ComponentProvider

from components.forms import FORMS
from components.package.arguments import MeshArgs
from components.package.host import COMPONENTS, NAME
from components.package.mesh import ELSEWHERE, Mesh, argument_of, settings_of
from components.package.parts import CertificateAuthority, ControlPlane, Prometheus
from components.package.workload import MeshedWorkload, MeshedWorkloadArgs
from components.workload import ControlWorkload
from proxy.api import labels
from tests.iac.kit import ROOT, Graph, arguments, run, served_schema

GOLDEN = ROOT / "components" / "schema.json"
CONTEXT: MeshArgs = {"context": "some", "kubeconfig": "/state/kubeconfig"}


def schema() -> dict[str, Any]:
    text = ComponentProvider(COMPONENTS, NAME, None, "0.0.0").schema
    assert text is not None
    found: dict[str, Any] = json.loads(text)
    return found


def described(kind: str) -> dict[str, str]:
    properties = schema()["resources"][f"tulle:index:{kind}"]["inputProperties"]
    return {name: " ".join(each["description"].split()) for name, each in properties.items()}


def test_the_schema_is_the_golden_one() -> None:
    text = json.dumps(schema(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("TULLE_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run again with TULLE_WRITE_GOLDEN=1 and read the difference"


def test_every_field_has_a_sentence_and_every_optional_one_its_default() -> None:
    for name, resource in schema()["resources"].items():
        required = set(resource.get("requiredInputs", ()))
        for field, each in resource["inputProperties"].items():
            text = " ".join(each.get("description", "").split())
            assert text.endswith("."), (name, field)
            assert field in required or "Default: " in text, (name, field)
        for field, each in resource["properties"].items():
            assert each["description"].strip().endswith("."), (name, field)


def test_the_meshs_arguments_are_the_configs_keys_with_their_sentences_and_defaults() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    wanted = {argument_of(key): key for key in FORMS if key not in ELSEWHERE}
    assert set(MeshArgs.__annotations__) == {"context", "kubeconfig", *wanted}
    texts = described("Mesh")
    for argument, key in wanted.items():
        camel = re.sub(r"_(\w)", lambda match: match[1].upper(), argument)
        sentence = f"{declared[key]['description']} Default: {json.dumps(declared[key]['default'])}."
        assert texts[camel] == sentence, key


def test_arguments_left_out_mean_what_a_stack_left_silent_means() -> None:
    silent = arguments("dev")
    assert settings_of(CONTEXT) == {**silent, "trust": {**silent["trust"], "protect": True}}
    given = settings_of({**CONTEXT, "replicas": 3, "trust_protect": False, "proxy_inbound_policy": "deny"})
    assert (given["replicas"], given["trust"]["protect"], given["proxy"]["inbound_policy"]) == (3, False, "deny")
    # The host hands numbers over as doubles.
    doubles: Any = {**CONTEXT, "replicas": 3.0, "trust_anchors": [1.0]}
    assert json.dumps(settings_of(doubles)["trust"]["anchors"]) == "[1]"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"replicas": 0}, "config key replicas is '0', but must be an integer from 1 to 9"),
        ({"replica": 3}, "Mesh has no argument 'replica'; it has context"),
        ({"proxy_log_level": "loud"}, "proxy.logLevel is 'loud'"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(pulumi.RunError, match=words):
        settings_of({**CONTEXT, **wrong})  # type: ignore[typeddict-item]


def test_the_mesh_of_the_package_is_the_mesh_of_the_stack() -> None:
    def shape(graph: Graph) -> dict[tuple[str, str], Any]:
        return {(each.type, each.name): each.inputs for each in graph.resources if each.type.startswith("kubernetes:")}

    from components.mesh import Mesh as Composition

    mine = shape(run(lambda: Mesh("tulle", {**CONTEXT, "replicas": 2})))
    theirs = shape(run(lambda: Composition("tulle", arguments("dev", replicas="2", images_registry="localhost/tulle"))))
    assert mine == theirs


def test_the_parts_alone_declare_what_the_mesh_does() -> None:
    settings: MeshArgs = {**CONTEXT, "replicas": 2, "labels": {"team": "platform"}}

    def parts() -> None:
        trust = CertificateAuthority("trust", {"mesh": settings})
        inside = pulumi.ResourceOptions(provider=trust.kubernetes, depends_on=[trust])
        plane = ControlPlane("control", {"mesh": settings}, inside)
        # One that makes its own provider, of the same cluster.
        prometheus = Prometheus("prometheus", {"mesh": settings}, pulumi.ResourceOptions(depends_on=[trust]))
        pulumi.export("all", [plane.namespace, prometheus.url, trust.bundle, trust.trust_domain])

    def objects(graph: Graph) -> dict[tuple[str, str], Any]:
        return {
            (each.type, json.dumps(each.inputs["metadata"], sort_keys=True)): {**each.inputs, "metadata": None}
            for each in graph.resources
            if each.type.startswith("kubernetes:") and not each.type.endswith(":Namespace")
        }

    made = run(parts)
    assert objects(made) == objects(run(lambda: Mesh("mesh", settings)))
    assert {each.name for each in made.of("kubernetes")} == {"trust-kubernetes", "prometheus-kubernetes"}
    # Pods of the control plane mount issuer and bundle, so they wait for both.
    (identity,) = [each for each in made.resources if each.name == "control-identity-deployment"]
    for needed in ("trust-issuer", "trust-bundle"):
        assert any(urn.endswith(f"::{needed}") for urn in identity.depends), needed


def test_labels_reach_every_object_and_no_selector() -> None:
    settings: MeshArgs = {**CONTEXT, "labels": {"team": "platform"}, "adopted_namespaces": ["theirs"]}
    graph = run(lambda: Mesh("mesh", settings))
    for each in graph.resources:
        if each.type.startswith("kubernetes:"):
            given = each.inputs["metadata"].get("labels", {}).get("team")
            assert given == (None if each.type.endswith("Patch") else "platform"), each.name
    for deployment in graph.of("Deployment"):
        spec = deployment.inputs["spec"]
        assert spec["template"]["metadata"]["labels"]["team"] == "platform"
        assert "team" not in spec["selector"]["matchLabels"]


def workload(**more: Any) -> Graph:
    args: MeshedWorkloadArgs = {"namespace": "shop", "image": "shop/web:1", **more}  # type: ignore[typeddict-item]
    return run(lambda: MeshedWorkload("web", args))


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job"])
def test_a_workload_has_its_proxy_its_own_account_and_its_service(kind: str) -> None:
    graph = workload(kind=kind, port=8080, inbound_policy="all-authenticated", environment={"B": "2", "A": "1"})
    made = graph.one(kind, "web").inputs
    pod = made["spec"]["template"]
    assert pod["metadata"]["annotations"] == {
        labels.INJECT: "enabled",
        "config.linkerd.io/default-inbound-policy": "all-authenticated",
    }
    assert pod["spec"]["serviceAccountName"] == graph.one("ServiceAccount", "web").inputs["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert container["securityContext"]["runAsUser"] == 65532
    assert container["resources"]["limits"]["memory"]
    service = graph.one("Service", "web").inputs["spec"]
    assert service["ports"] == [{"name": "tcp", "port": 8080, "targetPort": 8080}]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()


def test_a_workload_without_a_port_has_no_service_and_wrong_values_are_named() -> None:
    assert not workload().of("Service")
    for wrong, words in (
        ({"kind": "DaemonSet"}, "web: kind is 'DaemonSet', but must be one of Deployment"),
        ({"port": 70000}, "web: port is '70000', but must be an integer from 0 to 65535"),
        ({"inbound_policy": "allow"}, "web: inbound_policy is 'allow'"),
        ({"opaque_ports": "x"}, "web: opaque_ports is 'x'"),
    ):
        with pytest.raises(pulumi.RunError, match=words):
            workload(**wrong)


def test_the_host_serves_the_schema_to_pulumi(tmp_path: Path) -> None:
    # As Pulumi starts it: the file by its path, from another folder.
    served = served_schema([sys.executable, "-u", str(ROOT / "components"), "127.0.0.1:1"], tmp_path)
    assert served["resources"] == schema()["resources"]


def test_the_host_makes_parts_from_what_another_language_sends() -> None:
    # Names as the schema has them, and every number a double.
    settings = {"context": "some", "replicas": 2.0, "trustAnchors": [1.0, 2.0], "labels": {"a": "b"}}

    def program() -> None:
        host = ComponentProvider(COMPONENTS, NAME, None, "0.0.0")
        nothing = pulumi.ResourceOptions()
        trust = {"mesh": settings, "meshNamespace": "tulle"}
        made = host.construct("trust", "tulle:index:CertificateAuthority", trust, nothing)
        assert set(made.state) == {"bundle", "trustDomain"}
        host.construct("control", "tulle:index:ControlPlane", {"mesh": settings}, nothing)

    graph = run(program)
    assert [each.name for each in graph.of("TrustAnchor")] == ["trust-anchor", "trust-anchor-2"]
    identity = graph.one("Deployment", "identity").inputs
    assert identity["spec"]["replicas"] == 2
    assert identity["metadata"]["labels"]["a"] == "b"


def test_no_hosted_module_hides_its_types() -> None:
    for component in [*COMPONENTS, ControlWorkload]:
        module = sys.modules[component.__module__]
        assert module.__file__ is not None
        assert "from __future__" not in Path(module.__file__).read_text(), component


def test_the_walk_through_of_the_readme_runs() -> None:
    (program,) = re.findall(
        r"(?ms)^## From a Pulumi program of yours.*?```python\n(.*?)```", (ROOT / "README.md").read_text()
    )
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    digest = "sha256:" + "0" * 64
    graph = run(lambda: exec(compile(program.replace("sha256:...", digest), "README.md", "exec"), {}))
    assert graph.one("Deployment", "web").inputs["metadata"]["namespace"] == "shop"
    assert graph.one("Deployment", "identity").inputs["spec"]["replicas"] == 3
    (web,) = [each for each in graph.resources if each.name == "web-deployment"]
    assert "::mesh-kubernetes::" in web.provider
    # Its pods start after the injector and its webhooks, or they would start outside the mesh.
    for needed in ("mesh-control-plane-injector-webhooks", "mesh-control-plane-injector-deployment", "web-account"):
        assert any(urn.endswith(f"::{needed}") for urn in web.depends), needed
