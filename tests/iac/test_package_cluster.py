"""The package's workloads from another program, for real: one of each kind, meshed, on the local cluster."""

import json
import secrets
from pathlib import Path

import pytest

from components.deploy import project
from components.deploy.deployment import Deployment, Result
from components.deploy.steps import Action
from proxy.api import labels
from tests.kit.cluster import Kube

SCHEMA = """
runtime: python
config:
  namespace: {type: string, description: Where.}
  image: {type: string, description: Image of all workloads.}
"""
PROGRAM = '''
import pulumi
import pulumi_kubernetes as k8s
from components.package import MeshedNamespace, MeshedWorkload

config, cluster = pulumi.Config(), pulumi.Config("kubernetes")
where = {"kubeconfig": cluster.require("kubeconfig"), "context": cluster.require("context")}
provider = k8s.Provider("mine", enable_server_side_apply=True, **where)
inside = pulumi.ResourceOptions(provider=provider)
shop = MeshedNamespace("shop", {"namespace": config.require("namespace"), "labels": {"team": "shop"}}, inside)
common = {"namespace": shop.name, "image": config.require("image")}
serve = ["python3", "-m", "http.server", "--directory", "/tmp", "8080"]
servers = {
    kind: MeshedWorkload(
        name,
        {**common, "kind": kind, "port": 8080, "command": serve, "inbound_policy": "all-authenticated"},
        pulumi.ResourceOptions(provider=provider, depends_on=[shop]),
    )
    for kind, name in (("Deployment", "web"), ("StatefulSet", "store"))
}
ask = """
import os, time, urllib.request
for address in os.environ["ADDRESSES"].split():
    for attempt in range(30):
        try:
            print(address, urllib.request.urlopen(f"http://{address}/", timeout=5).status)
            break
        except OSError as error:
            print(address, error)
            time.sleep(1)
    else:
        raise SystemExit(1)
"""
addresses = pulumi.Output.all(*(each.address for each in servers.values())).apply(" ".join)
job = MeshedWorkload(
    "ask",
    {
        **common, "kind": "Job", "command": ["python3", "-c", ask], "environment": {"ADDRESSES": addresses},
        "labels": {"team": "askers"},
    },
    pulumi.ResourceOptions(provider=provider, depends_on=list(servers.values())),
)
for name, made in (("web", servers["Deployment"]), ("store", servers["StatefulSet"]), ("ask", job)):
    pulumi.export(name, made.service_account)
'''


class Shop:
    """The program as a stack of its own."""

    def __init__(self, root: Path, kube: Kube, namespace: str, image: str) -> None:
        (root / "Pulumi.yaml").write_text(f"name: {namespace}\n{SCHEMA}")
        (root / "Pulumi.t.yaml").write_text("config: {}\n")
        (root / "__main__.py").write_text(PROGRAM)
        self._project = project.load(root)
        self._config = self._project.config("t", {"namespace": namespace, "image": image})
        self._target = kube.target

    def run(self, act: str) -> Result:
        made = Deployment(self._project, "t", self._config, self._target)
        try:
            result: Result = getattr(made, act)()
            return result
        finally:
            made.close()


def control_image(kube: Kube) -> str:
    """The control plane's own image, which the node has."""
    containers = [c for each in kube.pods(labels.MESH_NAMESPACE) for c in each["spec"]["containers"]]
    return next(str(c["image"]) for c in containers if c["name"] == "identity")


@pytest.mark.e2e
@pytest.mark.timeout(280)
def test_a_workload_of_each_kind_is_meshed_and_they_reach_each_other(kube: Kube, tmp_path: Path) -> None:
    namespace = f"package-{secrets.token_hex(3)}"
    shop = Shop(tmp_path, kube, namespace, control_image(kube))
    try:
        result = shop.run("up")
        assert dict(result.outputs) == {name: f"{namespace}/{name}" for name in ("web", "store", "ask")}
        pods = kube.list("v1", "Pod", namespace)
        assert {pod["metadata"]["labels"]["app"] for pod in pods} == {"web", "store", "ask"}
        for pod in pods:
            containers = [c["name"] for c in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]]
            assert labels.PROXY_CONTAINER in containers, pod["metadata"]["name"]
        # The servers admit authenticated callers alone, so a Job that has ended well was one.
        (asked,) = [pod for pod in pods if pod["metadata"]["labels"]["app"] == "ask"]
        assert asked["status"]["phase"] == "Succeeded", kube.story(namespace)
        assert asked["metadata"]["labels"]["team"] == "askers"
        assert shop.run("up").tally.quiet
    finally:
        gone = shop.run("down")
        kube.gone(namespace)
    assert json.dumps([step.label for step in gone.tally.steps if step.action is Action.DELETE]).count(namespace) >= 8
