"""Typed arguments of the mesh's resources: shapes only, a docstring for each field. Values come from
`components.settings`.

Fields that decide which resources exist are plain; only what may come from another resource is an Input.
"""

from typing import NotRequired, TypedDict

import pulumi


class ClusterSettings(TypedDict):
    """Which cluster; never a current context."""

    kubeconfig: str
    """Path of the kubeconfig file."""
    context: str
    """Context in it."""


class NameSettings(TypedDict):
    """Names that identities are made of."""

    mesh_namespace: str
    """Namespace of the control plane."""
    trust_namespace: str
    """Namespace of the trust anchor's key."""
    trust_domain: str
    """Last part of every identity."""
    cluster_domain: str
    """DNS domain of the cluster."""


class ImageSettings(TypedDict):
    """The images, fully resolved."""

    proxy: str
    """Data plane: sidecar and init container."""
    control: str
    """Control plane and demo."""
    prometheus: str
    """Prometheus."""
    version: str
    """What injected pods state as their proxy's version."""
    pull_policy: str
    """When nodes pull."""
    pull_secret: str
    """Name of a pull Secret, or empty."""


class TrustSettings(TypedDict):
    """The certificate authority."""

    protect: bool
    """Keep the anchor when the stack is taken down."""
    anchors: list[int]
    """Numbers of the own anchors that are trusted."""
    signer: int
    """Number of the one that signs issuers."""
    force: bool
    """Change anchors without waiting for pods."""
    issuer_lifetime: str
    """Life of an issuer that the mesh makes."""
    issuer_certificate: str
    """PEM of a brought issuer's certificate, or empty."""
    issuer_key: str
    """PEM of a brought issuer's key, or empty; read here only to be checked, it never becomes a resource's input."""
    issuer_secret: str
    """Secret in the mesh namespace that somebody else keeps, or empty."""
    bundle: str
    """PEM of the anchors behind a brought issuer, or of further ones beside the stack's own; or empty."""


class ProxyDefaults(TypedDict):
    """Defaults of the data plane."""

    inbound_policy: str
    """Default inbound policy."""
    opaque_ports: str
    """Ports relayed as bytes."""
    skip_inbound_ports: str
    """Inbound ports that bypass the proxy."""
    skip_outbound_ports: str
    """Outbound ports that bypass the proxy."""
    cluster_networks: str
    """Networks that count as the cluster."""
    sidecar: str
    """auto, native or classic."""
    ipv6: bool
    """Listen on IPv6 at changed ports too; at the usual ones pods with IPv6 are served anyway."""
    log_level: str
    """Log level."""
    log_format: str
    """Log format."""
    metrics_plaintext: bool
    """Serve metrics without mTLS too."""
    cpu_request: str
    """CPU request."""
    memory_request: str
    """Memory request."""
    memory_limit: str
    """Memory limit."""
    allowed_overrides: list[str]
    """What pods may override; ["*"] for all."""


class CniSettings(TypedDict):
    """Who sets the redirection of pods."""

    enabled: bool
    """A CNI plugin on the nodes; no pod needs NET_ADMIN."""


class TelemetrySettings(TypedDict):
    """Prometheus."""

    enabled: bool
    """Run it here."""
    url: str
    """Address of another one, or empty."""
    retention: str
    """How long samples are kept."""
    scrape_interval: str
    """How often proxies are asked."""


class UpgradeSettings(TypedDict):
    """How running proxies are brought to a new version."""

    restart: bool
    """A deployment restarts workloads by itself."""
    first: list[str]
    """Namespaces that come first, in order."""
    percent: int
    """Per cent of a namespace's workloads in one wave."""
    pause: int
    """Seconds between waves."""
    tolerance: int
    """Per cent by which success may fall; 100 measures nothing."""


class DemoSettings(TypedDict):
    """The demo application."""

    enabled: bool
    """Run it."""
    rate: int
    """Requests per second of its meshed client."""


class NodeSettings(TypedDict):
    """What is known of the nodes."""

    report: str
    """File of the playbook `verify`; empty asks nobody."""
    max_age: str
    """How old it may be."""


class MeshSettings(TypedDict):
    """The whole mesh."""

    cluster: ClusterSettings
    """Where it runs."""
    names: NameSettings
    """What it is called."""
    images: ImageSettings
    """What it runs."""
    revisions: dict[str, ImageSettings]
    """What further control planes run, by name."""
    replicas: int
    """Pods of each control-plane component."""
    meshed_namespaces: list[str]
    """Namespaces to create with injection enabled."""
    adopted_namespaces: list[str]
    """Namespaces that others made, to enable injection in."""
    labels: dict[str, str]
    """Labels of the stack's owner, on every object."""
    leaf_lifetime: str
    """Life of a workload's certificate."""
    trust: TrustSettings
    """The certificate authority."""
    external_kind: bool
    """Declare the kind ExternalWorkload."""
    cni: CniSettings
    """Who sets the redirection of pods."""
    proxy: ProxyDefaults
    """The data plane's defaults."""
    telemetry: TelemetrySettings
    """Prometheus."""
    nodes: NodeSettings
    """What is known of the nodes."""
    upgrade: UpgradeSettings
    """Upgrades of the data plane."""
    demo: DemoSettings
    """The demo."""
    rendered: bool
    """Declare for `tulle render`: plain objects only, with a Job in place of what a deployer makes in the cluster."""


class CertificateAuthorityArgs(TypedDict):
    """Anchor, issuer and the bundle that proxies trust."""

    mesh: MeshSettings
    """The mesh's settings."""
    mesh_namespace: pulumi.Input[str]
    """The mesh namespace, once it exists."""
    trust_namespace: pulumi.Input[str]
    """The trust namespace, once it exists."""


class ComponentArgs(TypedDict):
    """What every part of the control plane needs."""

    mesh: MeshSettings
    """The mesh's settings."""
    namespace: pulumi.Input[str]
    """The mesh namespace, once it exists."""
    after: list[pulumi.Resource]
    """What must exist before its pods start: a component's own depends_on does not reach its children."""
    revision: NotRequired[str]
    """Of which control plane it is a part, if not of the mesh's own."""
    beside: NotRequired[list[pulumi.Resource]]
    """Control planes that take over namespaces before the mesh's own lets go of them."""


class MeshedNamespaceArgs(TypedDict):
    """A namespace whose pods are injected."""

    namespace: pulumi.Input[str]
    """Its name."""
    labels: NotRequired[pulumi.Input[dict[str, pulumi.Input[str]]]]
    """Further labels of it. Default: none."""


class InjectionReadyArgs(TypedDict):
    """Proof that pods of a namespace are injected."""

    cluster: ClusterSettings
    """Where to ask."""
    namespace: pulumi.Input[str]
    """In which namespace."""
    trigger: pulumi.Input[str]
    """Changes whenever the injector does, so that it is proven again."""
