"""CustomResourceDefinitions over upgrades: changed in place, and never taken away from under somebody's objects."""

from pathlib import Path

from components.deploy import project
from components.deploy.deployment import Deployment, Result
from components.deploy.refs import Target
from components.deploy.steps import Action, Tally
from tests.iac.rest import serving

SCHEMA = """
name: definitions
runtime: python
config:
  declared: {type: boolean, default: true, description: Whether the definition is declared.}
  words: {type: string, default: one, description: A part of it that changes.}
"""
PROGRAM = """
import pulumi
import pulumi_kubernetes as k8s

config, cluster = pulumi.Config(), pulumi.Config("kubernetes")
provider = k8s.Provider("there", kubeconfig=cluster.require("kubeconfig"), context=cluster.require("context"),
    enable_server_side_apply=True)
if config.require_bool("declared"):
    schema = {"type": "object", "description": config.require("words")}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"open_apiv3_schema": schema}}
    k8s.apiextensions.v1.CustomResourceDefinition(
        "widgets",
        metadata={"name": "widgets.example.tulle.io"},
        spec={"group": "example.tulle.io", "scope": "Namespaced", "versions": [version],
            "names": {"kind": "Widget", "plural": "widgets"}},
        opts=pulumi.ResourceOptions(provider=provider),
    )
"""
WIDGET = {"apiVersion": "example.tulle.io/v1", "kind": "Widget", "metadata": {"name": "mine"}}


def deployment(root: Path, target: Target, **config: str) -> Deployment:
    found = project.load(root)
    return Deployment(found, "t", found.config("t", config), target)


def up(root: Path, target: Target, **config: str) -> Result:
    made = deployment(root, target, **config)
    try:
        return made.up()
    finally:
        made.close()


def plan(root: Path, target: Target, **config: str) -> Tally:
    made = deployment(root, target, **config)
    try:
        return made.plan()
    finally:
        made.close()


def test_a_definition_outlives_its_declaration_while_it_has_objects(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "Pulumi.yaml").write_text(SCHEMA)
    (root / "Pulumi.t.yaml").write_text("config: {}\n")
    (root / "__main__.py").write_text(PROGRAM)
    name = "widgets.example.tulle.io"
    with serving(tmp_path) as (api, target):
        up(root, target)
        api.put("namespaces", {"kind": "Namespace", "metadata": {"name": "shop"}})
        api.put("widgets", WIDGET, "shop")
        made = api.get("customresourcedefinitions", name)

        up(root, target, words="two")
        changed = api.get("customresourcedefinitions", name)
        assert made is not None
        assert changed is not None
        assert changed["metadata"]["uid"] == made["metadata"]["uid"], "changed in place"
        assert "two" in str(changed["spec"])
        assert not any(verb == "DELETE" for verb, _ in api.writes)

        for tally in (plan(root, target, declared="false"), up(root, target, declared="false").tally):
            (step,) = [each for each in tally.steps if "Definition" in each.label]
            assert step.action is Action.KEEP
            assert "1 objects of it exist" in step.note
        assert api.get("widgets", "mine", "shop") is not None

        api.objects.pop(("widgets", "shop", "mine"))
        up(root, target, declared="false")
        assert api.get("customresourcedefinitions", name) is None, "gone with the last of them"
