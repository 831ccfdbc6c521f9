"""What the stack declares of the injector: the webhook's process, its two webhooks, meshed namespaces, and the proof
that injection works.

The webhooks' caBundle is not declared: the injector makes its own CA and writes it, and a deployment must neither own
nor reset it.
"""

import time
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from components.args import ComponentArgs, InjectionReadyArgs, MeshedNamespaceArgs
from components.injector.config import CONFIG_KEY, CONFIG_MAP, encode_config
from components.revision.names import named
from components.workload import ControlWorkload, images_of, injector_config, labels_of
from proxy.api import labels

CONFIG_DIR = "/var/run/tulle/injector"
WEBHOOKS = "tulle-injector"
INJECT_PATH = "/inject"
PATIENCE_SECONDS = 120.0
"""How long a namespace may take to be injected: the injector's certificate, its caBundle, and the API server's cache of
webhooks.
"""


class Injector(pulumi.ComponentResource):
    """The admission webhook that adds proxies to pods."""

    workload: ControlWorkload
    """Its Deployment and what is around it."""
    webhooks: k8s.admissionregistration.v1.MutatingWebhookConfiguration
    """Both webhooks."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Injector", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        mesh, revision = args["mesh"], args.get("revision", "")
        names = mesh["names"]
        config = encode_config(injector_config(mesh, revision)).decode()
        config_map_name, webhooks = named(CONFIG_MAP, revision), named(WEBHOOKS, revision)
        own = {**labels_of(named("injector", revision)), **({labels.REVISION: revision} if revision else {})}
        config_map = k8s.core.v1.ConfigMap(
            f"{name}-config",
            metadata={"name": config_map_name, "namespace": args["namespace"], "labels": own},
            data={CONFIG_KEY: config},
            opts=child,
        )
        self.workload = ControlWorkload(
            name,
            {
                "mesh": mesh,
                "namespace": args["namespace"],
                "after": [*args["after"], config_map],
                "component": "injector",
                "revision": revision,
                "image": images_of(mesh, revision)["control"],
                "command": [
                    "python3",
                    "-m",
                    "components.injector",
                    f"--mesh-namespace={names['mesh_namespace']}",
                    f"--config={CONFIG_DIR}/{CONFIG_KEY}",
                    f"--webhook-configurations={webhooks}",
                    *([f"--revision={revision}"] if revision else []),
                ],
                "services": [
                    {
                        "name": named("injector", revision),
                        "headless": False,
                        "ports": [{"name": "webhook", "port": 443, "target": labels.INJECTOR_PORT}],
                    }
                ],
                "config": config,
                "cluster_rules": _cluster_rules(revision),
                "mesh_rules": _mesh_rules(revision),
                "volumes": [{"name": "config", "configMap": {"name": config_map_name}}],
                "mounts": [{"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}],
            },
            pulumi.ResourceOptions(parent=self),
        )
        exempt = ["kube-system", names["mesh_namespace"], names["trust_namespace"]]
        # After the Deployment is ready: a webhook with failurePolicy Fail and nobody behind it stops its namespaces.
        self.webhooks = k8s.admissionregistration.v1.MutatingWebhookConfiguration(
            f"{name}-webhooks",
            metadata={"name": webhooks, "labels": own},
            webhooks=[_webhook(args, exempt, meshed=True), _webhook(args, exempt, meshed=False)],
            # And after the revisions: a namespace that goes over to one is never without a webhook.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.workload, *args.get("beside", [])]),
        )
        self.register_outputs({})


class MeshedNamespace(pulumi.ComponentResource):
    """A namespace with injection enabled: the annotation that people know, and the label that a webhook can select."""

    name: pulumi.Output[str]
    """The namespace, once it exists."""

    def __init__(self, name: str, args: MeshedNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:MeshedNamespace", name, {}, opts)
        own = {labels.MESHED_NAMESPACE: "enabled", labels.PART_OF: "tulle", labels.MANAGED_BY: "tulle"}
        further = pulumi.Output.from_input(args.get("labels") or {})
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": args["namespace"],
                "annotations": {labels.INJECT: "enabled"},
                "labels": further.apply(lambda given: {**given, **own}),
            },
            # A component's own depends_on does not reach its children.
            opts=pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts is not None else None),
        )
        self.name = namespace.metadata.apply(lambda metadata: metadata.name or args["namespace"])
        self.register_outputs({"name": self.name})


def adopt_namespace(name: str, namespace: str, opts: pulumi.ResourceOptions) -> k8s.core.v1.NamespacePatch:
    """Enable injection in a namespace that somebody else made: of all its fields only these two become the stack's, and
    are given back when it is taken down.
    """
    metadata: Any = {
        "name": namespace,
        "annotations": {labels.INJECT: "enabled"},
        "labels": {labels.MESHED_NAMESPACE: "enabled"},
    }
    return k8s.core.v1.NamespacePatch(f"{name}-patch", metadata=metadata, opts=opts)


class InjectionProbe(ResourceProvider):
    """Asks the API server, by dry run, what would become of a new pod."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait until a pod comes back with a proxy."""
        self._wait(props)
        return CreateResult(props["namespace"], dict(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Wait again: the injector has changed."""
        self._wait(props)
        return UpdateResult(dict(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Only another namespace or another injector asks for new proof."""
        return DiffResult(changes=any(olds.get(key) != news.get(key) for key in ("namespace", "trigger")))

    def _wait(self, props: dict[str, Any]) -> None:
        from components.deploy.cluster import Cluster
        from components.deploy.errors import ClusterError, NotReadyError
        from components.deploy.refs import Target

        pod = _sample_pod(str(props["namespace"]))
        cluster = Cluster(Target(str(props["kubeconfig"]), str(props["context"])))
        deadline, seen = time.monotonic() + PATIENCE_SECONDS, ""
        try:
            while time.monotonic() < deadline:
                try:
                    answer = cluster.create(pod, dry_run=True)["spec"]
                    if any(
                        c["name"] == labels.PROXY_CONTAINER
                        for c in [*answer.get("initContainers", []), *answer["containers"]]
                    ):
                        return
                    seen = "the pod came back without a proxy"
                except ClusterError as error:
                    seen = error.problem
                time.sleep(0.5)
        finally:
            cluster.close()
        raise NotReadyError(
            f"pods in namespace {props['namespace']} are not injected after {PATIENCE_SECONDS:.0f} s: {seen}",
            "Look at the injector's log (`kubectl logs -n <mesh namespace> deploy/injector`), then run again.",
        )


class InjectionReady(Resource, module="tulle", name="InjectionReady"):
    """Stands for the moment from which pods of a namespace are injected; meshed workloads depend on it."""

    def __init__(self, name: str, args: InjectionReadyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        cluster = args["cluster"]
        props = {
            "kubeconfig": cluster["kubeconfig"],
            "context": cluster["context"],
            "namespace": args["namespace"],
            "trigger": args["trigger"],
        }
        super().__init__(InjectionProbe(), name, props, opts)


def _webhook(
    args: ComponentArgs, exempt: list[str], *, meshed: bool
) -> k8s.admissionregistration.v1.MutatingWebhookArgsDict:
    label: k8s.meta.v1.LabelSelectorRequirementArgsDict = {
        "key": labels.MESHED_NAMESPACE,
        "operator": "In" if meshed else "NotIn",
        "values": ["enabled"],
    }
    revision, others = args.get("revision", ""), sorted(args["mesh"]["revisions"])
    served: list[k8s.meta.v1.LabelSelectorRequirementArgsDict] = []
    if revision or others:
        served.append(
            {
                "key": labels.REVISION,
                "operator": "In" if revision else "NotIn",
                "values": [revision] if revision else others,
            }
        )
    return {
        "name": f"{'meshed' if meshed else 'annotated'}.injector.tulle.io",
        "admission_review_versions": ["v1"],
        "client_config": {
            "service": {
                "name": named("injector", revision),
                "namespace": args["namespace"],
                "path": INJECT_PATH,
                "port": 443,
            }
        },
        # A pod of a meshed namespace must not slip in without its proxy; elsewhere a broken mesh must not stop anyone.
        "failure_policy": "Fail" if meshed else "Ignore",
        "match_policy": "Equivalent",
        "namespace_selector": {
            "match_expressions": [
                label,
                *served,
                {"key": labels.ADMISSION_EXEMPT, "operator": "NotIn", "values": ["disabled"]},
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": exempt},
            ]
        },
        "reinvocation_policy": "Never",
        "rules": [
            {
                "operations": ["CREATE"],
                "api_groups": [""],
                "api_versions": ["v1"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ],
        "side_effects": "NoneOnDryRun",
        "timeout_seconds": 10,
    }


def _cluster_rules(revision: str) -> list[k8s.rbac.v1.PolicyRuleArgsDict]:
    read = ["get", "list", "watch"]
    rules: list[k8s.rbac.v1.PolicyRuleArgsDict] = [
        {"api_groups": [""], "resources": ["namespaces"], "verbs": read},
        # Copies of the trust bundle, in any namespace that has meshed pods; a create cannot be limited by name.
        {"api_groups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {
            "api_groups": [""],
            "resources": ["configmaps"],
            "resource_names": [labels.BUNDLE_CONFIG_MAP],
            "verbs": [*read, "update"],
        },
        {"api_groups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        # The owner of a pod, on which events are written.
        {"api_groups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]},
        {
            "api_groups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resource_names": [named(WEBHOOKS, revision)],
            "verbs": [*read, "patch"],
        },
    ]
    # To it belong all copies of the trust bundle, so that they outlive a revision.
    own: k8s.rbac.v1.PolicyRuleArgsDict = {
        "api_groups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "resource_names": [WEBHOOKS],
        "verbs": read,
    }
    return [*rules, own] if revision else rules


def _mesh_rules(revision: str) -> list[k8s.rbac.v1.PolicyRuleArgsDict]:
    return [
        {"api_groups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {
            "api_groups": [""],
            "resources": ["secrets"],
            "resource_names": [named("tulle-injector-tls", revision)],
            "verbs": ["get", "list", "watch", "update"],
        },
        {"api_groups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "api_groups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resource_names": [named("tulle-injector", revision)],
            "verbs": ["get", "update"],
        },
    ]


def _sample_pod(namespace: str) -> dict[str, Any]:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": labels.CONTROLLER_UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "probe", "image": "localhost/tulle/none:none", "securityContext": security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "tulle-injection-probe-", "namespace": namespace},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }
