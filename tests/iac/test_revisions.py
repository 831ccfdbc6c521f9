"""Control planes beside the mesh's own, as a stack declares them: what there is, whom it serves, how it goes again."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.deploy.deployment import Deployment
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from components.deploy.steps import Action, Tally
from components.injector.config import decode_config
from components.injector.patch import inject_pod
from proxy.api import labels
from tests.iac.kit import Graph, Registered, mesh_graph
from tests.iac.rest import RestApi, serving, unguarded

MESH = labels.MESH_NAMESPACE
PARTS = ("identity", "destination", "injector")
CANARY = json.dumps({"canary": "0.9.9"})


@pytest.fixture(scope="module")
def alone() -> Graph:
    return mesh_graph()


@pytest.fixture(scope="module")
def both() -> Graph:
    return mesh_graph(revisions=CANARY)


def objects(graph: Graph) -> dict[tuple[str, str, str], Registered]:
    found = {}
    for each in graph.resources:
        metadata = each.inputs.get("metadata")
        if each.type.startswith("kubernetes:") and metadata:
            found[each.type, str(metadata.get("namespace", "")), metadata["name"]] = each
    return found


def test_a_revision_changes_nothing_of_what_is_there_but_whom_the_webhooks_serve(alone: Graph, both: Graph) -> None:
    before, after = objects(alone), objects(both)
    changed = {key[2] for key in before if before[key].inputs != after[key].inputs}
    assert changed == {"tulle-injector"}
    made = {key[2] for key in after.keys() - before.keys()}
    assert {f"{part}-canary" for part in PARTS} <= made
    assert {"injector-config-canary", "tulle-injector-canary", "identity-canary-headless"} <= made
    assert all("canary" in name for name in made)


def test_no_namespace_is_served_by_two_webhooks_or_by_none(both: Graph) -> None:
    def asked(name: str) -> list[Any]:
        (found,) = (each for each in both.of("MutatingWebhookConfiguration") if each.inputs["metadata"]["name"] == name)
        return [
            expression
            for webhook in found.inputs["webhooks"]
            for expression in webhook["namespaceSelector"]["matchExpressions"]
            if expression["key"] == labels.REVISION
        ]

    assert asked("tulle-injector") == [{"key": labels.REVISION, "operator": "NotIn", "values": ["canary"]}] * 2
    assert asked("tulle-injector-canary") == [{"key": labels.REVISION, "operator": "In", "values": ["canary"]}] * 2


def test_it_runs_its_own_images_and_asks_itself(both: Graph) -> None:
    for part in PARTS:
        found = objects(both)["kubernetes:apps/v1:Deployment", MESH, f"{part}-canary"]
        template = found.inputs["spec"]["template"]
        containers = {each["name"]: each for each in template["spec"]["containers"]}
        assert containers[f"{part}-canary"]["image"].endswith("/control:0.9.9")
        assert template["metadata"]["labels"][labels.REVISION] == "canary"
        assert template["spec"]["serviceAccountName"] == f"{part}-canary"
        assert found.inputs["spec"]["selector"]["matchLabels"][labels.COMPONENT] == f"{part}-canary"
    config_map = objects(both)["kubernetes:core/v1:ConfigMap", MESH, "injector-config-canary"]
    config = decode_config(config_map.inputs["data"]["config.json"].encode())
    assert config.proxy.image.endswith("/proxy:0.9.9")
    assert config.proxy.version == "0.9.9"
    assert config.proxy.identity_address.startswith("identity-canary-headless.")


class Stack:
    """The mesh on an API server in memory."""

    def __init__(self, api: RestApi, target: Target) -> None:
        self.api = api
        self.target = target

    def up(self, revisions: dict[str, Any]) -> Tally:
        found = unguarded(Path(self.target.kubeconfig).parent)
        values = {"revisions": json.dumps(revisions), "demo.enabled": "false", "prometheus.enabled": "false"}
        made = Deployment(found, "local", found.config("local", values), self.target)
        try:
            return made.up().tally
        finally:
            made.close()

    def pod(self, name: str, config_map: str, namespace: str) -> None:
        """One that an injector has made, by the configuration that it reads."""
        document = (self.api.get("configmaps", config_map, MESH) or {})["data"]["config.json"]
        config = decode_config(document.encode())
        plain = {"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "app"}]}}
        self.api.put("pods", copy.deepcopy(inject_pod(plain, config, config.proxy, native=True)), namespace)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(tmp_path_factory.mktemp("api")) as (api, target):
        yield Stack(api, target)


@pytest.mark.timeout(300)
def test_it_comes_and_goes_but_not_while_pods_need_it(stack: Stack) -> None:
    stack.up({})
    own = {key: version for key, version in stack.api.versions().items() if key[0] == "deployments"}
    stack.up({"canary": "0.9.9"})
    assert {key: stack.api.versions()[key] for key in own} == own
    assert [step.label for step in stack.up({"canary": "0.9.9"}).steps if step.action is not Action.SAME] == []
    stack.pod("web-1", "injector-config-canary", "shop")
    stack.pod("bank-1", "injector-config", "bank")
    # Its own parts are of it, and go with it.
    stack.pod("identity-canary-1", "injector-config-canary", MESH)
    with pytest.raises(DeployError) as caught:
        stack.up({})
    text = str(caught.value)
    assert "revision canary would be removed, but pods in shop are still served by it" in text
    assert "`tulle upgrade`" in text
    assert stack.api.get("deployments", "identity-canary", MESH) is not None
    # Another version of it is no removal.
    stack.up({"canary": "0.9.10"})
    stack.pod("web-1", "injector-config", "shop")
    stack.up({})
    assert stack.api.get("deployments", "identity-canary", MESH) is None
    assert stack.api.get("mutatingwebhookconfigurations", "tulle-injector-canary") is None
    assert {key: stack.api.versions()[key] for key in own} == own
