"""Stands in the way of a deployment that would remove a revision whose proxies still ask it for certificates and
endpoints.
"""

from typing import Any

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.args import MeshSettings


class RevisionsProvider(ResourceProvider):
    """Makes nothing: its check is what it is for."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in previews too, to remove what is in use. What is there is asked of the cluster, not of a state."""
        reason = _refusal(news)
        return CheckResult(news, [CheckFailure("revisions", reason)] if reason else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """The names are recorded."""
        return CreateResult(str(props["namespace"]), dict(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Other names."""
        return UpdateResult(dict(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Other names."""
        return DiffResult(changes=olds.get("names") != news.get("names"))


class Revisions(Resource, module="tulle", name="Revisions"):
    """The revisions that a stack declares."""

    def __init__(self, name: str, mesh: MeshSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {
            "kubeconfig": mesh["cluster"]["kubeconfig"],
            "context": mesh["cluster"]["context"],
            "namespace": mesh["names"]["mesh_namespace"],
            "names": sorted(mesh["revisions"]),
        }
        super().__init__(RevisionsProvider(), name, props, opts)


def _refusal(props: dict[str, Any]) -> str:
    import contextlib

    from components.deploy.cluster import Cluster
    from components.deploy.refs import Target
    from components.revision.names import users
    from proxy.api import labels

    namespace = str(props["namespace"])
    with contextlib.closing(Cluster(Target(str(props["kubeconfig"]), str(props["context"])))) as cluster:
        live = cluster.list("apps/v1", "Deployment", namespace, labels.REVISION)
        going = {str(each["metadata"]["labels"][labels.REVISION]) for each in live} - set(props["names"])
        if not going:
            return ""
        pods = cluster.list("v1", "Pod", "", f"{labels.CONTROL_PLANE_NAMESPACE}={namespace}")
    for revision in sorted(going):
        if held := users(revision, namespace, pods):
            return (
                f"revision {revision} would be removed, but pods in {', '.join(held)} are still served by it. Take the "
                f"label {labels.REVISION} from these namespaces, run `tulle upgrade`, then this again"
            )
    return ""
