"""The parts of a mesh for programs that put it together themselves: trust, control plane and Prometheus, each alone.

What `Mesh` does for all of them is the program's here: the two namespaces, and that the parts are given the same
settings.
"""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as k8s

from components.args import MeshSettings
from components.keeper.resource import Keeper
from components.mesh import ControlPlane as ControlPlaneOfStack
from components.mesh import kubernetes
from components.package.arguments import MeshArgs
from components.package.mesh import settings_of
from components.telemetry.resource import Prometheus as PrometheusOfStack
from components.trust.resource import CertificateAuthority as AuthorityOfStack
from components.workload import labelling


class CertificateAuthorityArgs(TypedDict):
    """Trust of one mesh."""

    mesh: MeshArgs
    """The mesh's settings; all parts of a mesh must have the same ones."""
    mesh_namespace: NotRequired[pulumi.Input[str]]
    """The mesh namespace, once it exists; the one that the settings name. Default: theirs."""
    trust_namespace: NotRequired[pulumi.Input[str]]
    """The trust namespace, once it exists; the one that the settings name. Default: theirs."""


class ControlPlaneArgs(TypedDict):
    """Control plane of one mesh."""

    mesh: MeshArgs
    """The mesh's settings; all parts of a mesh must have the same ones."""
    namespace: NotRequired[pulumi.Input[str]]
    """The mesh namespace, once it exists; the one that the settings name. Default: theirs."""


class PrometheusArgs(TypedDict):
    """Prometheus of one mesh."""

    mesh: MeshArgs
    """The mesh's settings; all parts of a mesh must have the same ones."""
    namespace: NotRequired[pulumi.Input[str]]
    """The mesh namespace, once it exists; the one that the settings name. Default: theirs."""


class CertificateAuthority(AuthorityOfStack):
    """Trust anchor, issuer and the bundle that proxies trust, and the keeper that renews the issuer."""

    bundle: pulumi.Output[str]
    """PEM of all trust anchors, public."""
    trust_domain: pulumi.Output[str]
    """Last part of every identity."""

    def __init__(
        self, name: str, args: CertificateAuthorityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        mesh = settings_of(args["mesh"])
        names, trust = mesh["names"], mesh["trust"]
        self.kubernetes, options = _provided(name, mesh, opts)
        theirs: Any = {
            "mesh": mesh,
            "mesh_namespace": args.get("mesh_namespace", names["mesh_namespace"]),
            "trust_namespace": args.get("trust_namespace", names["trust_namespace"]),
        }
        super().__init__(name, theirs, options)
        if not trust["issuer_certificate"] and not trust["issuer_secret"]:
            Keeper(f"{name}-keeper", theirs, self.made, pulumi.ResourceOptions(parent=self))
        self.trust_domain = pulumi.Output.from_input(names["trust_domain"])
        self.register_outputs({"bundle": self.bundle, "trustDomain": self.trust_domain})


class ControlPlane(ControlPlaneOfStack):
    """Identity, destination and injector; depend on the CertificateAuthority, whose issuer and bundle they mount."""

    namespace: pulumi.Output[str]
    """The mesh namespace, known once its injector is there: what waits for it starts inside the mesh."""

    def __init__(self, name: str, args: ControlPlaneArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        mesh = settings_of(args["mesh"])
        self.kubernetes, options = _provided(name, mesh, opts)
        namespace = args.get("namespace", mesh["names"]["mesh_namespace"])
        super().__init__(name, {"mesh": mesh, "namespace": namespace, "after": _after(opts)}, options)
        there = pulumi.Output.all(namespace, self.injector.webhooks.id)
        self.namespace = there.apply(lambda found: str(found[0]))
        self.register_outputs({"namespace": self.namespace})


class Prometheus(PrometheusOfStack):
    """Prometheus with the mesh's scrape configuration and rules; depend on the CertificateAuthority, for its proxy."""

    url: pulumi.Output[str]
    """Where it is asked, from inside the cluster."""

    def __init__(self, name: str, args: PrometheusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        mesh = settings_of(args["mesh"])
        self.kubernetes, options = _provided(name, mesh, opts)
        namespace = args.get("namespace", mesh["names"]["mesh_namespace"])
        super().__init__(name, {"mesh": mesh, "namespace": namespace, "after": _after(opts)}, options)


def _provided(
    name: str, mesh: MeshSettings, opts: pulumi.ResourceOptions | None
) -> tuple[pulumi.ProviderResource, pulumi.ResourceOptions]:
    """The provider that was handed in, else one for the cluster of the settings; and options with it and the labels."""
    labels = pulumi.ResourceOptions(transformations=labelling(mesh["labels"]))
    options = pulumi.ResourceOptions.merge(opts, labels)
    given: Any = opts.providers if opts is not None else None
    several = list(given.values()) if isinstance(given, dict) else [given] if _is_one(given) else list(given or ())
    several += [opts.provider] if opts is not None and opts.provider is not None else []
    for each in several:
        if isinstance(each, k8s.Provider) or getattr(each, "package", "") == "kubernetes":
            return each, options
    made = kubernetes(name, mesh["cluster"])
    return made, pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(providers=[made]))


def _is_one(given: Any) -> bool:
    return isinstance(given, pulumi.ProviderResource)


def _after(opts: pulumi.ResourceOptions | None) -> list[Any]:
    """What the component was told to wait for, since its own depends_on does not reach its children."""
    given: Any = opts.depends_on if opts is not None else None
    return list(given) if isinstance(given, Sequence) else [given] if given is not None else []
