"""What the stack declares of the keeper: its process in the trust namespace, and the few rights it has."""

from collections.abc import Sequence
from typing import Any, cast

import pulumi
import pulumi_kubernetes as k8s

from components.args import CertificateAuthorityArgs
from components.trust.objects import anchor_name
from components.workload import (
    API_ACCESS,
    API_ACCESS_DIR,
    ObjectMeta,
    api_access,
    container_security,
    hash_of,
    labels_of,
    pod_security,
    probe,
    selector_of,
)
from proxy.api import labels

COMPONENT = "trust"
RBAC = "rbac.authorization.k8s.io"


class Bootstrap(pulumi.ComponentResource):
    """A Job that makes anchor, issuer and bundle where there are none; for `tulle render`, which prints no key.

    A Job cannot be changed, so its name carries a hash of what it runs: rendered again unchanged it is the same one,
    and another one finds everything there and makes nothing.
    """

    def __init__(self, name: str, args: CertificateAuthorityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Bootstrap", name, {}, opts)
        mesh = args["mesh"]
        component = f"{COMPONENT}-bootstrap"
        grants = grant(
            self,
            name,
            component,
            args,
            trust=[_create("secrets"), _named("secrets", [labels.ANCHOR_SECRET], ["get"])],
            mesh=[
                _create("secrets"),
                _create("configmaps"),
                _named("secrets", [labels.ISSUER_SECRET], ["get"]),
                _named("configmaps", [labels.BUNDLE_CONFIG_MAP], ["get"]),
            ],
        )
        further = mesh["trust"]["bundle"]
        command = [*_command("bootstrap", args), f"--issuer-lifetime={mesh['trust']['issuer_lifetime']}"]
        command += [f"--further={further}"] if further else []
        pod = {**pod_spec(component, args, command), "restartPolicy": "OnFailure"}
        template = {"metadata": {"labels": labels_of(COMPONENT)}, "spec": pod}
        job = f"{component}-{hash_of(repr(template))[:8]}"
        k8s.batch.v1.Job(
            f"{name}-job",
            metadata={"name": job, "namespace": args["trust_namespace"], "labels": labels_of(COMPONENT)},
            spec={"backoff_limit": 20, "template": cast(k8s.core.v1.PodTemplateSpecArgsDict, template)},
            opts=pulumi.ResourceOptions(parent=self, depends_on=grants),
        )
        self.register_outputs({})


class Keeper(pulumi.ComponentResource):
    """The process that renews the issuer: the one workload that may read the anchor's key.

    It speaks to the API server alone and nobody speaks to it, so it has no proxy: trust must not hang on what it makes.
    """

    def __init__(
        self,
        name: str,
        args: CertificateAuthorityArgs,
        after: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("tulle:index:Keeper", name, {}, opts)
        anchor = anchor_name(args["mesh"]["trust"]["signer"])
        grants = grant(
            self,
            name,
            COMPONENT,
            args,
            trust=[_named("secrets", [anchor], ["get"])],
            mesh=[
                _named("secrets", [labels.ISSUER_SECRET], ["get", "update"]),
                _named("configmaps", [labels.BUNDLE_CONFIG_MAP], ["get"]),
            ],
            # Which anchor it may read changes only once a rotation's step has been let through; the issuer itself says
            # which that is, so that the process goes on.
            after=after,
        )
        lifetime = args["mesh"]["trust"]["issuer_lifetime"]
        command = [*_command("keep", args), f"--issuer-lifetime={lifetime}"]
        pod = pod_spec(COMPONENT, args, command)
        (container,) = pod["containers"]
        container["ports"] = [{"name": "admin", "containerPort": labels.CONTROLLER_ADMIN_PORT, "protocol": "TCP"}]
        container["livenessProbe"] = probe("/live", "admin", initialDelaySeconds=10, periodSeconds=10)
        container["readinessProbe"] = probe("/ready", "admin", periodSeconds=5)
        template = {"metadata": {"labels": labels_of(COMPONENT)}, "spec": pod}
        k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata={"name": COMPONENT, "namespace": args["trust_namespace"], "labels": labels_of(COMPONENT)},
            spec={
                # One is enough for what is due once a year with months to spare, and two could only disagree.
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"match_labels": selector_of(COMPONENT)},
                "template": cast(k8s.core.v1.PodTemplateSpecArgsDict, template),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*grants, *after]),
        )
        self.register_outputs({})


def grant(
    parent: pulumi.Resource,
    name: str,
    component: str,
    args: CertificateAuthorityArgs,
    *,
    trust: list[k8s.rbac.v1.PolicyRuleArgsDict],
    mesh: list[k8s.rbac.v1.PolicyRuleArgsDict],
    after: Sequence[pulumi.Resource] = (),
) -> list[pulumi.Resource]:
    """A service account in the trust namespace, with rights there and in the mesh namespace, and none elsewhere."""
    child = pulumi.ResourceOptions(parent=parent, depends_on=after)
    home: ObjectMeta = {"name": component, "namespace": args["trust_namespace"], "labels": labels_of(COMPONENT)}
    account = k8s.core.v1.ServiceAccount(
        f"{name}-account", metadata=home, automount_service_account_token=False, opts=child
    )
    made: list[pulumi.Resource] = [account]
    for place, rules in (("trust", trust), ("mesh", mesh)):
        where = args["trust_namespace"] if place == "trust" else args["mesh_namespace"]
        metadata: ObjectMeta = {**home, "namespace": where}
        role = k8s.rbac.v1.Role(f"{name}-{place}-role", metadata=metadata, rules=rules, opts=child)
        made.append(
            k8s.rbac.v1.RoleBinding(
                f"{name}-{place}-binding",
                metadata=metadata,
                role_ref={"api_group": RBAC, "kind": "Role", "name": component},
                subjects=[{"kind": "ServiceAccount", "name": component, "namespace": args["trust_namespace"]}],
                opts=pulumi.ResourceOptions(parent=parent, depends_on=[role, account]),
            )
        )
    return made


def pod_spec(account: str, args: CertificateAuthorityArgs, command: list[str]) -> dict[str, Any]:
    """A pod that speaks to the API server alone, so without a proxy, in Kubernetes' own spelling."""
    images = args["mesh"]["images"]
    container = {
        "name": COMPONENT,
        "image": images["control"],
        "imagePullPolicy": images["pull_policy"],
        "command": command,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": API_ACCESS, "mountPath": API_ACCESS_DIR, "readOnly": True}],
    }
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [api_access()],
        **({"imagePullSecrets": [{"name": images["pull_secret"]}]} if images["pull_secret"] else {}),
    }


def _command(task: str, args: CertificateAuthorityArgs) -> list[str]:
    names = args["mesh"]["names"]
    return [
        *("python3", "-m", "components.keeper", task),
        f"--mesh-namespace={names['mesh_namespace']}",
        f"--trust-namespace={names['trust_namespace']}",
        f"--trust-domain={names['trust_domain']}",
    ]


def _create(resource: str) -> k8s.rbac.v1.PolicyRuleArgsDict:
    # A create cannot be limited by name.
    return {"api_groups": [""], "resources": [resource], "verbs": ["create"]}


def _named(resource: str, names: list[str], verbs: list[str]) -> k8s.rbac.v1.PolicyRuleArgsDict:
    return {"api_groups": [""], "resources": [resource], "resource_names": names, "verbs": verbs}
