"""What every part of the control plane is made of: ServiceAccount, RBAC, Services, Deployment behind our own proxy,
disruption budget.

Belongs here: what all parts share, and nothing that only one of them has. A part says what is its own in a
WorkloadArgs.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypeAlias, TypedDict, cast

import msgspec
import pulumi
import pulumi_kubernetes as k8s

from components.args import ImageSettings, MeshSettings
from components.injector.config import KNOWN_OVERRIDES, InjectorConfig, ProxySettings, Resources
from components.injector.control_plane import control_plane_pod, control_plane_settings, served_by
from components.injector.patch import Owner, inject_pod
from components.revision.names import named
from proxy.api import labels

ObjectMeta: TypeAlias = k8s.meta.v1.ObjectMetaArgsDict

API_ACCESS: Final = "kube-api-access"
API_ACCESS_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
CONFIG_HASH: Final = "tulle.io/config-hash"
"""Annotation on pod templates: a changed configuration rolls the pods that read it only when they start."""


class PortArgs(TypedDict):
    """A port of a Service and of its pods."""

    name: str
    """Name of the port."""
    port: int
    """Port of the Service."""
    target: int
    """Port of the pod."""


class ServiceArgs(TypedDict):
    """A Service in front of a workload."""

    name: str
    """Name of the Service."""
    headless: bool
    """Without a ClusterIP, so that callers see each pod."""
    ports: list[PortArgs]
    """Its ports."""


class WorkloadArgs(TypedDict):
    """One part of the control plane."""

    mesh: MeshSettings
    """The mesh's settings."""
    namespace: pulumi.Input[str]
    """The mesh namespace, once it exists."""
    after: list[pulumi.Resource]
    """What must exist before its pods start."""
    component: str
    """What it is."""
    revision: NotRequired[str]
    """Of which control plane it is a part, if not of the mesh's own; then its name ends in it."""
    image: str
    """Its image."""
    command: list[str]
    """What runs in it."""
    services: list[ServiceArgs]
    """Services in front of it."""
    replicas: NotRequired[int]
    """Pods, if not the mesh's number."""
    cluster_rules: NotRequired[list[k8s.rbac.v1.PolicyRuleArgsDict]]
    """What it may do in the whole cluster."""
    mesh_rules: NotRequired[list[k8s.rbac.v1.PolicyRuleArgsDict]]
    """What it may do in the mesh namespace."""
    volumes: NotRequired[list[dict[str, Any]]]
    """Volumes of its pods."""
    mounts: NotRequired[list[dict[str, Any]]]
    """Where its container has them."""
    config: NotRequired[str]
    """Configuration that it reads at start; a change of it rolls the pods."""
    probes: NotRequired[dict[str, str]]
    """Paths of its `live` and `ready` probes, and their `port`, where they are not the usual ones."""
    inbound_policy: NotRequired[str]
    """Who may call it, if not only meshed workloads."""
    resources: NotRequired[dict[str, dict[str, str]]]
    """Requests and limits."""


def labels_of(component: str) -> dict[str, str]:
    """The labels of everything a component declares."""
    return {labels.PART_OF: "tulle", labels.COMPONENT: component, labels.MANAGED_BY: "tulle"}


def selector_of(component: str) -> dict[str, str]:
    """What finds a component's pods; a Deployment's selector never changes, so it says as little as it can."""
    return {labels.PART_OF: "tulle", labels.COMPONENT: component}


def labelling(further: Mapping[str, str]) -> list[pulumi.ResourceTransformation]:
    """What puts labels on every object below a component, and on the pods of Deployments and StatefulSets.

    Not on patches, which own but the fields that they name, and not on the pods of Jobs, which cannot change.
    """

    def label(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        kind = args.type_.rpartition(":")[2]
        if not args.type_.startswith("kubernetes:") or kind.endswith("Patch"):
            return None
        given: Mapping[str, Any] = args.props
        props: dict[str, Any] = {**given, "metadata": _labelled(given.get("metadata") or {}, further)}
        if kind in ("Deployment", "StatefulSet"):
            spec, template = props["spec"], props["spec"]["template"]
            labelled = {**template, "metadata": _labelled(template["metadata"], further)}
            props["spec"] = {**spec, "template": labelled}
        return pulumi.ResourceTransformationResult(props, args.opts)

    return [label] if further else []


def _labelled(metadata: Mapping[str, Any], further: Mapping[str, str]) -> dict[str, Any]:
    own = metadata.get("labels") or {}
    if isinstance(own, Mapping):
        return {**metadata, "labels": {**further, **own}}
    return {**metadata, "labels": pulumi.Output.from_input(own).apply(lambda found: {**further, **found})}


def _labels(args: WorkloadArgs) -> dict[str, str]:
    revision = args.get("revision", "")
    own = labels_of(named(args["component"], revision))
    return {**own, labels.REVISION: revision} if revision else own


def hash_of(*texts: str) -> str:
    """A short hash, for annotations that roll pods."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def images_of(mesh: MeshSettings, revision: str) -> ImageSettings:
    """What a control plane runs."""
    return mesh["revisions"][revision] if revision else mesh["images"]


def injector_config(mesh: MeshSettings, revision: str = "") -> InjectorConfig:
    """The configuration of a control plane's injector; its own pods are patched with the same one."""
    proxy, names, images = mesh["proxy"], mesh["names"], images_of(mesh, revision)
    everything = proxy["allowed_overrides"] == ["*"]
    config = InjectorConfig(
        proxy=msgspec.convert(
            {
                "image": images["proxy"],
                "version": images["version"],
                "imagePullPolicy": images["pull_policy"],
                "imagePullSecret": images["pull_secret"],
                "inboundPolicy": proxy["inbound_policy"],
                "opaquePorts": proxy["opaque_ports"],
                "skipInboundPorts": proxy["skip_inbound_ports"],
                "skipOutboundPorts": proxy["skip_outbound_ports"],
                "clusterNetworks": proxy["cluster_networks"],
                "ipv6": proxy["ipv6"],
                "logLevel": proxy["log_level"],
                "logFormat": proxy["log_format"],
                "metricsPlaintext": proxy["metrics_plaintext"],
                "resources": msgspec.to_builtins(
                    Resources(
                        cpu_request=proxy["cpu_request"],
                        memory_request=proxy["memory_request"],
                        memory_limit=proxy["memory_limit"],
                    )
                ),
            },
            ProxySettings,
        ),
        mesh_namespace=names["mesh_namespace"],
        trust_domain=names["trust_domain"],
        cluster_domain=names["cluster_domain"],
        sidecar=msgspec.convert(proxy["sidecar"], InjectorConfig.__annotations__["sidecar"]),
        cni_enabled=mesh["cni"]["enabled"],
        allowed_overrides=KNOWN_OVERRIDES if everything else tuple(proxy["allowed_overrides"]),
        exempt_namespaces=("kube-system", names["mesh_namespace"], names["trust_namespace"]),
    )
    return served_by(config, revision) if revision else config


class ControlWorkload(pulumi.ComponentResource):
    """One part of the control plane, with everything that stands around its Deployment."""

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:ControlWorkload", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        component, namespace = named(args["component"], args.get("revision", "")), args["namespace"]
        metadata: ObjectMeta = {"name": component, "namespace": namespace, "labels": _labels(args)}
        account = k8s.core.v1.ServiceAccount(
            f"{name}-account", metadata=metadata, automount_service_account_token=False, opts=child
        )
        grants = self._grants(name, args, metadata)
        for service in args["services"]:
            k8s.core.v1.Service(
                f"{name}-{service['name']}",
                metadata={**metadata, "name": service["name"]},
                spec={
                    **({"cluster_ip": "None"} if service["headless"] else {}),
                    "selector": selector_of(component),
                    "ports": [
                        {"name": port["name"], "port": port["port"], "target_port": port["target"], "protocol": "TCP"}
                        for port in service["ports"]
                    ],
                },
                opts=child,
            )
        replicas = args.get("replicas", args["mesh"]["replicas"])
        if replicas > 1:
            k8s.policy.v1.PodDisruptionBudget(
                f"{name}-budget",
                metadata=metadata,
                spec={"max_unavailable": 1, "selector": {"match_labels": selector_of(component)}},
                opts=child,
            )
        # An update of several pods on nodes of their own has no room for a surplus one, so it goes one by one.
        rolling: k8s.apps.v1.RollingUpdateDeploymentArgsDict = (
            {"max_surge": 0, "max_unavailable": 1} if replicas > 1 else {"max_surge": 1, "max_unavailable": 0}
        )
        k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=metadata,
            spec={
                "replicas": replicas,
                "selector": {"match_labels": selector_of(component)},
                "strategy": {"type": "RollingUpdate", "rolling_update": rolling},
                # Already in Kubernetes' own spelling, which the SDK passes on as it is.
                "template": cast(k8s.core.v1.PodTemplateSpecArgsDict, pod_template(args, replicas)),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[account, *grants, *args["after"]]),
        )
        self.register_outputs({})

    def _grants(self, name: str, args: WorkloadArgs, metadata: ObjectMeta) -> list[pulumi.Resource]:
        child = pulumi.ResourceOptions(parent=self)
        component = named(args["component"], args.get("revision", ""))
        mesh_namespace = args["mesh"]["names"]["mesh_namespace"]
        subject: k8s.rbac.v1.SubjectArgsDict = {
            "kind": "ServiceAccount",
            "name": component,
            "namespace": args["namespace"],
        }
        bindings: list[pulumi.Resource] = []
        if rules := args.get("cluster_rules"):
            # Cluster-wide names carry the mesh's, so that two meshes in one cluster do not share them.
            cluster_name = f"tulle-{mesh_namespace}-{component}"
            metadata_of_role: ObjectMeta = {"name": cluster_name, "labels": _labels(args)}
            role = k8s.rbac.v1.ClusterRole(f"{name}-cluster-role", metadata=metadata_of_role, rules=rules, opts=child)
            reference: k8s.rbac.v1.RoleRefArgsDict = {
                "api_group": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": cluster_name,
            }
            depends = pulumi.ResourceOptions(parent=self, depends_on=[role])
            bindings.append(
                k8s.rbac.v1.ClusterRoleBinding(
                    f"{name}-cluster-binding",
                    metadata=metadata_of_role,
                    role_ref=reference,
                    subjects=[subject],
                    opts=depends,
                )
            )
        if rules := args.get("mesh_rules"):
            local = k8s.rbac.v1.Role(f"{name}-role", metadata=metadata, rules=rules, opts=child)
            reference = {"api_group": "rbac.authorization.k8s.io", "kind": "Role", "name": component}
            depends = pulumi.ResourceOptions(parent=self, depends_on=[local])
            bindings.append(
                k8s.rbac.v1.RoleBinding(
                    f"{name}-binding", metadata=metadata, role_ref=reference, subjects=[subject], opts=depends
                )
            )
        return bindings


def pod_template(args: WorkloadArgs, replicas: int) -> dict[str, Any]:
    """The pod template with its proxy, in Kubernetes' own spelling."""
    mesh, revision = args["mesh"], args.get("revision", "")
    component = named(args["component"], revision)
    images, config = images_of(mesh, revision), injector_config(mesh, revision)
    probes = {"live": "/live", "ready": "/ready", "port": "admin", **args.get("probes", {})}
    targets = {port["name"]: port["target"] for service in args["services"] for port in service["ports"]}
    if "probes" not in args:
        targets["admin"] = labels.CONTROLLER_ADMIN_PORT
    container = {
        "name": component,
        "image": args["image"],
        "imagePullPolicy": images["pull_policy"],
        "command": args["command"],
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in targets.items()],
        "livenessProbe": probe(probes["live"], probes["port"], initialDelaySeconds=10, periodSeconds=10),
        "readinessProbe": probe(probes["ready"], probes["port"], periodSeconds=2),
        "resources": args.get(
            "resources", {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
        ),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": API_ACCESS, "mountPath": API_ACCESS_DIR, "readOnly": True}, *args.get("mounts", [])],
    }
    spec = {
        "serviceAccountName": component,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [api_access(), *args.get("volumes", [])],
        **({"imagePullSecrets": [{"name": images["pull_secret"]}]} if images["pull_secret"] else {}),
        **({"affinity": apart(component)} if replicas > 1 else {}),
    }
    annotations = {CONFIG_HASH: hash_of(args["config"])} if args.get("config") else {}
    pod = {"metadata": {"labels": _labels(args), "annotations": annotations}, "spec": spec}
    if policy := args.get("inbound_policy"):
        settings = msgspec.structs.replace(control_plane_settings(config, args["component"]), inbound_policy=policy)
        native = config.sidecar != "classic"
        return inject_pod(pod, config, settings, native=native, owner=Owner("deployment", component))
    return control_plane_pod(pod, config, args["component"], owner=component)


def api_access() -> dict[str, Any]:
    """Access to the API server for the container that mounts it, and so not for the proxy beside it."""
    return {
        "name": API_ACCESS,
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ],
        },
    }


def apart(component: str) -> dict[str, Any]:
    """No two pods of a component on one node, and on different zones where there are any."""
    selector = {"matchLabels": selector_of(component)}
    zone = {"labelSelector": selector, "topologyKey": "topology.kubernetes.io/zone"}
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
            ],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": zone}],
        }
    }


def pod_security() -> dict[str, Any]:
    """A pod's security context; the init container of the data plane sets its own user."""
    return {
        "fsGroup": labels.CONTROLLER_UID,
        "runAsGroup": labels.CONTROLLER_UID,
        "runAsNonRoot": True,
        "runAsUser": labels.CONTROLLER_UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """A container's security context: nothing it does not need."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": labels.CONTROLLER_UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def probe(path: str, port: str | int, **timing: int) -> dict[str, Any]:
    """An HTTP probe."""
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 2, **timing}
