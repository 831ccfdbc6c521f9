"""The stack's own mark in the cluster: which deployer owns it. The other one refuses, and says how to hand over.

The embedded deployer marks the stack by its inventory, before any program runs; under the Pulumi CLI this resource does
it.
"""

from typing import Any

import pulumi
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    Resource,
    ResourceProvider,
)

from components.args import ClusterSettings
from components.deploy.inventory import CLI


class OwnerProvider(ResourceProvider):
    """Writes and checks the mark; under the embedded deployer there is nothing to do."""

    serialize_as_secret_always = False

    def __init__(self) -> None:
        self._embedded = False

    def configure(self, req: ConfigureRequest) -> None:
        """Learn who is asking."""
        self._embedded = req.config.get("deployer") == "embedded"

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in previews too, a stack that the embedded deployer owns."""
        owner = CLI if self._embedded else self._owner(news)
        if owner in ("", CLI):
            return CheckResult(news, [])
        reason = (
            f"stack {news['stack']!r} belongs to the {owner} deployer here. Go on with `tulle up`; or hand it over as "
            f"it is: `tulle handover --to cli --stack {news['stack']}`, then `pulumi up`"
        )
        return CheckResult(news, [CheckFailure("stack", reason)])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Mark the stack as the CLI's."""
        if not self._embedded:
            from components.deploy import inventory

            address = inventory.address(props["project"], props["stack"])
            metadata = {
                "name": address.name,
                "namespace": address.namespace,
                "labels": {"app.kubernetes.io/part-of": "tulle"},
            }
            data = {"owner": CLI, "project": props["project"], "stack": props["stack"]}
            with _connected(props) as cluster:
                if cluster.get(address) is None:
                    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        return CreateResult(f"{props['project']}/{props['stack']}", dict(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Project and stack are the mark's identity."""
        replaces = [key for key in ("project", "stack") if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(replaces), replaces=replaces)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Take the mark away."""
        if not self._embedded:
            from components.deploy import inventory

            with _connected(props) as cluster:
                cluster.delete(inventory.address(props["project"], props["stack"]))

    def _owner(self, props: dict[str, Any]) -> str:
        from components.deploy import inventory

        with _connected(props) as cluster:
            found = cluster.get(inventory.address(props["project"], props["stack"])) or {}
        return str((found.get("data") or {}).get("owner", ""))


class StackOwner(Resource, module="tulle", name="StackOwner"):
    """Which deployer owns this stack."""

    def __init__(self, name: str, cluster: ClusterSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {
            "kubeconfig": cluster["kubeconfig"],
            "context": cluster["context"],
            "project": pulumi.get_project(),
            "stack": pulumi.get_stack(),
        }
        super().__init__(OwnerProvider(), name, props, opts)


def _connected(props: dict[str, Any]) -> Any:
    import contextlib

    from components.deploy.cluster import Cluster
    from components.deploy.refs import Target

    return contextlib.closing(Cluster(Target(str(props["kubeconfig"]), str(props["context"]))))
