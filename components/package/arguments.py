"""The arguments of a whole mesh: shapes only. A field for each config key, with its sentence and default; a test holds
them to `Pulumi.yaml`. All are plain: they are checked together before anything is declared, as a stack's config is.
"""

from typing import Any, NotRequired, TypedDict


class MeshArgs(TypedDict):
    """The mesh's settings; each one that is left out has the default of a stack's config."""

    context: str
    """Context of the kubeconfig; a mesh never goes to a current context."""
    kubeconfig: NotRequired[str]
    """Path of the kubeconfig file. Default: ~/.kube/config."""
    mesh_namespace: NotRequired[str]
    """Namespace of the control plane; part of every identity, so it cannot change later. Default: "tulle"."""
    trust_namespace: NotRequired[str]
    """Namespace that holds the trust anchor's key; the keeper, which lives there, is the one workload that may read it.
    Default: "tulle-trust".
    """
    trust_domain: NotRequired[str]
    """Last part of every identity; two meshes that must not trust each other need different ones. Default:
    "cluster.local".
    """
    cluster_domain: NotRequired[str]
    """DNS domain of the cluster's Services. Default: "cluster.local"."""
    replicas: NotRequired[int]
    """Pods of each control-plane component; from 2 on they get a disruption budget and nodes of their own. Default: 1.
    """
    meshed_namespaces: NotRequired[list[str]]
    """Namespaces that this stack creates with injection enabled. Default: []."""
    adopted_namespaces: NotRequired[list[str]]
    """Namespaces that exist already and get injection enabled; the stack owns the annotation and label alone. Default:
    [].
    """
    labels: NotRequired[dict[str, str]]
    """Labels of your own on every object that the stack declares, and on the pods of its workloads. Default: {}."""
    images_registry: NotRequired[str]
    """Registry and path of the images proxy, control and prometheus. Default: "localhost/tulle"."""
    images_tag: NotRequired[str]
    """Tag of the images, unless a digest or a full reference is given. Default: "0.1.0"."""
    images_digests: NotRequired[dict[str, str]]
    """Digest (sha256:...) by image name; pins that image whatever the tag says. Default: {}."""
    images_refs: NotRequired[dict[str, str]]
    """Full reference by image name; overrides registry, tag and digest. Default: {}."""
    revisions: NotRequired[dict[str, Any]]
    """Control planes beside the mesh's own, by name: a tag, or references of the images proxy and control.
    Default: {}.
    """
    images_pull_policy: NotRequired[str]
    """When nodes pull an image (Always, IfNotPresent or Never). Default: "IfNotPresent"."""
    images_pull_secret: NotRequired[str]
    """Name of a pull Secret, which must exist in the mesh's two namespaces and in each meshed one; empty for none.
    Default: "".
    """
    trust_protect: NotRequired[bool]
    """Keep the trust anchor (and its namespace) when the stack is taken down. Default: true."""
    trust_anchors: NotRequired[list[int]]
    """Numbers of the mesh's own anchors that are trusted; a second one is how an anchor is rotated. Default: [1]."""
    trust_signer: NotRequired[int]
    """Number of the anchor that signs the issuer; one of trust.anchors. Default: 1."""
    trust_force: NotRequired[bool]
    """Change anchors without waiting for every pod to be ready; requests fail until proxies have new certificates.
    Default: false.
    """
    trust_issuer_lifetime: NotRequired[str]
    """Life of an issuer that the mesh makes; the keeper renews it in its last third. Default: "8760h"."""
    trust_issuer_secret: NotRequired[str]
    """Secret in the mesh namespace that somebody else keeps (cert-manager) and identity signs with; empty for none.
    Default: "".
    """
    trust_bundle: NotRequired[str]
    """PEM of the anchors behind your own issuer, or of further ones beside the anchor the stack makes. Default: ""."""
    identity_leaf_lifetime: NotRequired[str]
    """Life of a workload's certificate; proxies renew at about two thirds of it. Default: "24h"."""
    external_workloads_kind: NotRequired[bool]
    """Declare the kind ExternalWorkload; false where another mesh of the cluster has declared it. Default: true."""
    cni_enabled: NotRequired[bool]
    """A CNI plugin on each node (Ansible role cni) redirects pods, so that no pod needs NET_ADMIN. Default: false."""
    proxy_inbound_policy: NotRequired[str]
    """Who may call meshed pods unless an annotation says otherwise (the values of default-inbound-policy). Default:
    "all-unauthenticated".
    """
    proxy_opaque_ports: NotRequired[str]
    """Ports relayed as bytes, with no protocol detection. Default: "25,587,3306,4444,5432,6379,9300,11211"."""
    proxy_skip_inbound_ports: NotRequired[str]
    """Inbound ports that bypass the proxy altogether. Default: "4567,4568"."""
    proxy_skip_outbound_ports: NotRequired[str]
    """Outbound ports that bypass the proxy altogether. Default: "4567,4568"."""
    proxy_cluster_networks: NotRequired[str]
    """Networks that count as the cluster for the cluster-* policies. Default:
    "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8".
    """
    proxy_sidecar: NotRequired[str]
    """Kind of sidecar (native, classic, or auto for native where the API server has it). Default: "auto"."""
    proxy_ipv6: NotRequired[bool]
    """Listen on IPv6 at changed ports too; at the usual ones pods with IPv6 are served anyway. Default: false."""
    proxy_log_level: NotRequired[str]
    """Log level of proxies (error, warn, info or debug). Default: "info"."""
    proxy_log_format: NotRequired[str]
    """Log format of proxies (plain or json). Default: "plain"."""
    proxy_metrics_plaintext: NotRequired[bool]
    """Serve proxies' metrics without mTLS too; for a Prometheus outside the mesh. Default: false."""
    proxy_cpu_request: NotRequired[str]
    """CPU that each proxy asks for. Default: "10m"."""
    proxy_memory_request: NotRequired[str]
    """Memory that each proxy asks for. Default: "32Mi"."""
    proxy_memory_limit: NotRequired[str]
    """Memory at which a proxy is killed. Default: "256Mi"."""
    proxy_allowed_overrides: NotRequired[list[str]]
    """Names (without config.linkerd.io/) of settings that a pod may override by annotation; "*" for all. Default:
    ["*"].
    """
    prometheus_enabled: NotRequired[bool]
    """Run Prometheus in the mesh namespace; without it and without a URL there are no statistics. Default: true."""
    prometheus_url: NotRequired[str]
    """Address of your own Prometheus; then none is run here. Default: ""."""
    prometheus_retention: NotRequired[str]
    """How long Prometheus keeps samples. Default: "6h"."""
    prometheus_scrape_interval: NotRequired[str]
    """How often Prometheus asks each proxy. Default: "10s"."""
    nodes_report: NotRequired[str]
    """File in which the playbook verify says what it found of the nodes; the stack comes up only if all are fit. Empty
    for none. Default: "".
    """
    nodes_max_age: NotRequired[str]
    """How old that report may be. Default: "24h"."""
    nodes_required: NotRequired[bool]
    """Refuse to come up without a report on nodes. Default: false."""
    upgrade_restart: NotRequired[bool]
    """Let a deployment restart workloads with older proxies, wave by wave, as `tulle upgrade` does when it is asked to.
    Default: false.
    """
    upgrade_first: NotRequired[list[str]]
    """Namespaces of the stack whose workloads are restarted first, in this order; the others follow by name. Default:
    [].
    """
    upgrade_percent: NotRequired[int]
    """Per cent of a namespace's workloads that are restarted at a time, rounded up. Default: 25."""
    upgrade_pause: NotRequired[str]
    """Time between two waves, over which success is measured; at least four of prometheus.scrapeInterval. Default:
    "60s".
    """
    upgrade_tolerance: NotRequired[int]
    """Per cent by which success may fall before an upgrade stops; 100 measures nothing. Default: 1."""
