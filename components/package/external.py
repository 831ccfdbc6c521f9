"""A machine outside the cluster: its ExternalWorkload, by which Services select it and identity knows it."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as k8s

from components.external.resource import GROUP, KIND, VERSION
from proxy.api import labels
from proxy.api.names import InvalidNameError, WorkloadIdentity, workload_identity


class ExternalWorkloadArgs(TypedDict):
    """One machine."""

    namespace: pulumi.Input[str]
    """Its namespace, whose Services may select it."""
    address: pulumi.Input[str]
    """IP address at which pods reach it."""
    ports: NotRequired[dict[str, int]]
    """Its TCP ports by name, which Services name as target ports. Default: none."""
    labels: NotRequired[dict[str, str]]
    """Labels that Services select it by. Default: app with its name."""
    service_account: NotRequired[str]
    """Account whose identity it has, which pods may share. Default: its name."""
    mesh_namespace: NotRequired[str]
    """Namespace of the control plane. Default: "tulle"."""
    trust_domain: NotRequired[str]
    """Last part of every identity. Default: "cluster.local"."""


class ExternalWorkload(pulumi.ComponentResource):
    """A machine that joins with a token of `tulle external token`, and is then called like a pod."""

    name: pulumi.Output[str]
    """Its name, which the token is made for."""
    identity: pulumi.Output[str]
    """The name in its certificate."""

    def __init__(self, name: str, args: ExternalWorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:ExternalWorkload", name, {}, opts)
        # What a component waits for does not reach its children by itself, and the kind must be there first.
        waits = pulumi.ResourceOptions(depends_on=opts.depends_on if opts is not None else None)
        child = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(parent=self), waits)
        namespace = pulumi.Output.from_input(args["namespace"])
        identity = namespace.apply(lambda found: _identity(name, args, found))
        given = args.get("labels", {"app": name})
        metadata: Any = {
            "name": name,
            "namespace": args["namespace"],
            "labels": {**given, labels.MANAGED_BY: "tulle"},
        }
        made = k8s.apiextensions.CustomResource(
            f"{name}-workload",
            api_version=f"{GROUP}/{VERSION}",
            kind=KIND,
            metadata=metadata,
            spec={
                "meshTLS": {
                    "identity": identity.apply(lambda found: found.spiffe_id),
                    "serverName": identity.apply(lambda found: found.dns_name),
                },
                "workloadIPs": [{"ip": args["address"]}],
                "ports": [
                    {"name": port, "port": int(number), "protocol": "TCP"}
                    for port, number in sorted(args.get("ports", {}).items())
                ],
            },
            opts=child,
        )
        self.name = made.metadata.apply(lambda found: found["name"])
        self.identity = identity.apply(lambda found: found.dns_name)
        self.register_outputs({"name": self.name, "identity": self.identity})


def _identity(name: str, args: ExternalWorkloadArgs, namespace: str) -> WorkloadIdentity:
    account, mesh = args.get("service_account", name), args.get("mesh_namespace", labels.MESH_NAMESPACE)
    try:
        return workload_identity(account, namespace, mesh, args.get("trust_domain", "cluster.local"))
    except InvalidNameError as error:
        raise pulumi.RunError(f"{name}: {error}") from None
