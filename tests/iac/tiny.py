"""A small project with one of everything a deployer must handle, in a namespace of its own on the local cluster."""

import json
import os
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.deploy import inventory, project
from components.deploy.cluster import Cluster
from components.deploy.deployment import Deployment, Result
from components.deploy.refs import Ref, Target
from components.deploy.steps import Action, Reporter, Tally
from components.deploy.target import LOCAL_CONTEXT, local_kubeconfig
from proxy.api import labels

SCHEMA: Final = """
runtime: python
config:
  namespace: {type: string, default: none, description: Where.}
  color: {type: string, default: red, description: A setting of one object.}
  extra: {type: boolean, default: true, description: Whether the extra component is there.}
  protect: {type: boolean, default: false, description: Whether the anchor is protected.}
  image: {type: string, default: "", description: Image of a Deployment; none if empty.}
  node: {type: string, default: "", description: The node that its pod waits for; any if empty.}
  password: {type: string, secret: true, default: correct-horse-battery, description: A secret.}
"""
PROGRAM: Final = """
import pulumi
import pulumi_kubernetes as k8s
from components.trust.resource import Issuer, TrustAnchor

config, cluster = pulumi.Config(), pulumi.Config("kubernetes")
where = {"kubeconfig": cluster.require("kubeconfig"), "context": cluster.require("context")}
provider = k8s.Provider("tiny", enable_server_side_apply=True, **where)
options = pulumi.ResourceOptions(provider=provider)
metadata = {"name": config.require("namespace"), "labels": {"a": "b"}}
made = k8s.core.v1.Namespace("namespace", metadata=metadata, opts=options)
namespace = made.metadata.apply(lambda metadata: metadata.name)
common = {**where, "namespace": namespace, "trust_domain": "cluster.local"}
anchor = TrustAnchor(
    "anchor",
    {**common, "mesh_namespace": config.require("namespace")},
    pulumi.ResourceOptions(protect=config.require_bool("protect"), depends_on=[made]),
)
issuer = Issuer("issuer", {**common, "bundle": anchor.certificate, "anchor_namespace": namespace})
k8s.core.v1.ConfigMap(
    "settings",
    metadata={"name": "settings", "namespace": namespace},
    data={"color": config.require("color"), "bundle": anchor.certificate},
    opts=options,
)
k8s.core.v1.Secret(
    "password",
    metadata={"name": "password", "namespace": namespace},
    string_data={"password": config.require_secret("password")},
    opts=options,
)
if config.require_bool("extra"):
    k8s.core.v1.ConfigMap("extra", metadata={"name": "extra", "namespace": namespace}, data={"a": "b"}, opts=options)
if config.get("image"):
    labels = {"app": "tiny"}
    selector = {"kubernetes.io/hostname": config.get("node")} if config.get("node") else None
    k8s.apps.v1.Deployment(
        "app",
        metadata={"name": "app", "namespace": namespace},
        spec={
            "selector": {"match_labels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "app", "image": config.require("image")}],
                    "node_selector": selector,
                },
            },
        },
        opts=options,
    )
pulumi.export("certificate", anchor.certificate)
pulumi.export("color", config.require("color"))
pulumi.export("password", config.require_secret("password"))
"""
OBJECTS: Final = (
    ("v1", "ConfigMap", "settings"),
    ("v1", "ConfigMap", "extra"),
    ("v1", "Secret", "password"),
    ("v1", "Secret", labels.ANCHOR_SECRET),
    ("v1", "Secret", labels.ISSUER_SECRET),
)


def target() -> Target:
    """Tulle's own local cluster; there is no way to name another."""
    return Target(str(local_kubeconfig(os.environ)), LOCAL_CONTEXT)


def unique() -> str:
    """A name that no other test uses."""
    return f"iac-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Tiny:
    """One stack of the small project."""

    root: Path
    name: str

    @classmethod
    def create(cls, root: Path, name: str) -> "Tiny":
        """Write the project; its name, stack and namespace are all the same."""
        root.mkdir(parents=True, exist_ok=True)
        (root / "Pulumi.yaml").write_text(f"name: {name}\n{SCHEMA}")
        (root / "Pulumi.t.yaml").write_text("config: {}\n")
        (root / "__main__.py").write_text(PROGRAM)
        return cls(root, name)

    def deployment(
        self, reporter: Reporter | None = None, adopt: bool = False, take: bool = False, **config: str
    ) -> Deployment:
        """A deployment of this stack."""
        found = project.load(self.root)
        settings = found.config("t", {"namespace": self.name, **config})
        return Deployment(found, "t", settings, target(), reporter, adopt, take)

    def up(self, reporter: Reporter | None = None, adopt: bool = False, **config: str) -> Result:
        """Deploy."""
        deployment = self.deployment(reporter, adopt, False, **config)
        try:
            return deployment.up()
        finally:
            deployment.close()

    def plan(self, **config: str) -> Tally:
        """Plan."""
        deployment = self.deployment(None, False, False, **config)
        try:
            return deployment.plan()
        finally:
            deployment.close()

    def down(self, reporter: Reporter | None = None) -> Result:
        """Take it down."""
        deployment = self.deployment(reporter)
        try:
            return deployment.down()
        finally:
            deployment.close()

    @property
    def inventory(self) -> Ref:
        """Where its inventory is."""
        return inventory.address(self.name, "t")

    def live(self, cluster: Cluster) -> dict[str, dict[str, Any]]:
        """All of its objects that exist, by kind and name; its inventory and its namespace among them."""
        refs = [Ref(version, kind, self.name, name) for version, kind, name in OBJECTS]
        refs += [Ref("v1", "Namespace", "", self.name), self.inventory]
        return {str(ref): found for ref in refs if (found := cluster.get(ref)) is not None}

    def versions(self, cluster: Cluster) -> dict[str, str]:
        """The resourceVersions of all of these."""
        return {name: live["metadata"]["resourceVersion"] for name, live in self.live(cluster).items()}


class Killer:
    """A reporter that ends its own process with SIGKILL at one boundary."""

    def __init__(self, label: str, point: str, where: Path) -> None:
        self._at = (label, point)
        self._where = where

    def began(self, label: str, action: Action) -> None:
        """Nothing."""

    def waits(self, label: str, reason: str) -> None:
        """Nothing."""

    def ended(self, label: str, action: Action) -> None:
        """Nothing."""

    def boundary(self, label: str, point: str) -> None:
        """Die here?"""
        if (label, point) == self._at:
            self._where.write_text(json.dumps([label, point]))
            os.kill(os.getpid(), signal.SIGKILL)
