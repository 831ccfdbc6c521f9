"""The composition root of the mesh's resources: the only place that decides order.

Read it top to bottom as the mesh comes up: mark, namespaces, trust and its keeper, identity, destination, injector,
Prometheus, meshed namespaces, demo, and at last the proxies that run already.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pulumi
import pulumi.runtime.config as stack_config
import pulumi_kubernetes as k8s

from components.args import CertificateAuthorityArgs, ClusterSettings, ComponentArgs, MeshSettings
from components.demo.resource import Demo
from components.deploy.errors import DeployError
from components.deploy.resource import StackOwner
from components.destination.resource import Destination
from components.external.resource import ExternalWorkloads
from components.identity.resource import Identity
from components.injector.resource import Injector, MeshedNamespace, adopt_namespace
from components.keeper.resource import Keeper
from components.nodes.report import require_fit
from components.revision.resource import Revisions
from components.settings import read
from components.telemetry.resource import Prometheus
from components.trust.resource import CertificateAuthority
from components.upgrade.resource import DataPlane
from components.workload import labelling, labels_of
from proxy.api import labels


def read_stack() -> MeshSettings:
    """The settings that the current stack's config means; the one place where config is read."""
    given: Mapping[str, str] = stack_config.CONFIG.get() or json.loads(os.environ.get("PULUMI_CONFIG", "{}"))
    try:
        found = read(given, pulumi.get_stack(), os.environ)
        require_fit(found, pulumi.get_stack(), Path())
        return found
    except DeployError as error:
        raise pulumi.RunError(str(error)) from None


def kubernetes(name: str, cluster: ClusterSettings) -> k8s.Provider:
    """The provider that everything of a mesh goes through: one cluster, named, and changes in place."""
    return k8s.Provider(
        f"{name}-kubernetes",
        kubeconfig=cluster["kubeconfig"],
        context=cluster["context"],
        enable_server_side_apply=True,
        # Otherwise a changed key would delete the Secret or ConfigMap and make another: a gap that pods would see.
        enable_secret_mutable=True,
        enable_config_map_mutable=True,
    )


class Revision(pulumi.ComponentResource):
    """A control plane beside the mesh's own: the same three, of another version, for namespaces that ask for it."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Revision", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        Identity(f"{name}-identity", args, child)
        Destination(f"{name}-destination", args, child)
        Injector(f"{name}-injector", args, child)
        self.register_outputs({})


class ControlPlane(pulumi.ComponentResource):
    """Identity, destination and injector; and revisions of them, where the stack has any."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:ControlPlane", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        external = [ExternalWorkloads(f"{name}-external", child)] if args["mesh"]["external_kind"] else []
        args = {**args, "after": [*args["after"], *external]}
        # All three start at once: their proxies ask for certificates until identity is there to give them.
        Identity(f"{name}-identity", args, child)
        Destination(f"{name}-destination", args, child)
        # Meshed workloads wait for it.
        revisions = [
            Revision(f"{name}-{each}", {**args, "revision": each}, child) for each in sorted(args["mesh"]["revisions"])
        ]
        self.injector = Injector(f"{name}-injector", {**args, "beside": [*revisions]}, child)
        self.register_outputs({})


class Mesh(pulumi.ComponentResource):
    """The whole mesh."""

    trust_bundle: pulumi.Output[str]
    """PEM of all trust anchors, public."""
    prometheus_url: pulumi.Output[str]
    """Where the mesh's metrics are asked for; empty if nowhere."""

    def __init__(self, name: str, args: MeshSettings, opts: pulumi.ResourceOptions | None = None) -> None:
        provider = kubernetes(name, args["cluster"])
        options = pulumi.ResourceOptions.merge(
            pulumi.ResourceOptions(providers=[provider], transformations=labelling(args["labels"])), opts
        )
        # What policies look at beyond the objects: certificates that config brings. Keys are never among the inputs.
        given = {"issuerCertificate": args["trust"]["issuer_certificate"], "trustBundle": args["trust"]["bundle"]}
        super().__init__("tulle:index:Mesh", name, {key: pem for key, pem in given.items() if pem}, options)
        self.kubernetes = provider
        child = pulumi.ResourceOptions(parent=self)
        # What is rendered belongs to whoever applies it.
        owner = [] if args["rendered"] else [StackOwner(f"{name}-owner", args["cluster"], child)]
        owned = pulumi.ResourceOptions(parent=self, depends_on=owner)
        mesh_namespace = _namespace(f"{name}-namespace", args["names"]["mesh_namespace"], owned)
        trust_namespace = _namespace(f"{name}-trust-namespace", args["names"]["trust_namespace"], owned)
        trust: CertificateAuthorityArgs = {
            "mesh": args,
            "mesh_namespace": mesh_namespace,
            "trust_namespace": trust_namespace,
        }
        authority = CertificateAuthority(f"{name}-authority", trust, child)
        if not args["trust"]["issuer_certificate"] and not args["trust"]["issuer_secret"]:
            Keeper(f"{name}-keeper", trust, [authority], child)
        # Pods of the control plane mount the issuer and the bundle; a mount that fails is tried again ever more seldom.
        meshed: ComponentArgs = {"mesh": args, "namespace": mesh_namespace, "after": [authority]}
        if not args["rendered"]:
            meshed["after"].append(Revisions(f"{name}-revisions", args, child))
        control_plane = ControlPlane(f"{name}-control-plane", meshed, child)
        self.prometheus_url = pulumi.Output.from_input(args["telemetry"]["url"])
        prometheus: list[pulumi.Resource] = []
        if args["telemetry"]["enabled"] and not args["telemetry"]["url"]:
            made = Prometheus(f"{name}-prometheus", meshed, child)
            self.prometheus_url = made.url
            prometheus.append(made)
        meshed_namespaces: list[pulumi.Resource] = [
            MeshedNamespace(f"{name}-{namespace}", {"namespace": namespace}, owned)
            for namespace in args["meshed_namespaces"]
        ]
        meshed_namespaces += [
            adopt_namespace(f"{name}-{namespace}", namespace, owned) for namespace in args["adopted_namespaces"]
        ]
        if args["demo"]["enabled"]:
            meshed_namespaces.append(Demo(f"{name}-demo", args, control_plane.injector, child))
        if args["upgrade"]["restart"] and not args["rendered"]:
            waits = [control_plane, *prometheus, *meshed_namespaces]
            DataPlane(f"{name}-data-plane", args, pulumi.ResourceOptions(parent=self, depends_on=waits))
        self.trust_bundle = authority.bundle
        self.register_outputs({"trustBundle": self.trust_bundle})


def _namespace(name: str, namespace: str, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """A namespace of the mesh's own, exempt from its webhooks: the control plane must start without itself."""
    made = k8s.core.v1.Namespace(
        name,
        metadata={"name": namespace, "labels": {**labels_of("mesh"), labels.ADMISSION_EXEMPT: "disabled"}},
        opts=opts,
    )
    ready: pulumi.Output[str] = made.metadata.apply(lambda metadata: metadata.name or namespace)
    return ready
