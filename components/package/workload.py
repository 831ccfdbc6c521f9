"""A workload of an application, in the mesh: Deployment, StatefulSet or Job with its own identity, and a Service."""

from typing import Any, Final, NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as k8s

from components.forms import Choice, Number, Ports
from components.workload import container_security
from proxy.api import labels

KINDS: Final = Choice(("Deployment", "StatefulSet", "Job"))
POLICIES: Final = Choice(labels.INBOUND_POLICIES)
PORT: Final = Number(range(65536))
PORTS: Final = Ports()


class MeshedWorkloadArgs(TypedDict):
    """One workload."""

    namespace: pulumi.Input[str]
    """Its namespace; one made by MeshedNamespace has the mesh's mandatory injection."""
    image: pulumi.Input[str]
    """Image of its container."""
    kind: NotRequired[str]
    """Deployment, StatefulSet or Job. Default: Deployment."""
    replicas: NotRequired[pulumi.Input[int]]
    """Pods; a Job runs one. Default: 1."""
    port: NotRequired[int]
    """TCP port of the container and of its Service; 0 for neither. Default: 0."""
    command: NotRequired[pulumi.Input[list[pulumi.Input[str]]]]
    """Command, if not the image's own. Default: none."""
    environment: NotRequired[pulumi.Input[dict[str, pulumi.Input[str]]]]
    """Environment variables; values from a Secret do not belong here. Default: none."""
    labels: NotRequired[pulumi.Input[dict[str, pulumi.Input[str]]]]
    """Further labels of its objects and pods. Default: none."""
    opaque_ports: NotRequired[str]
    """Ports relayed as bytes, with commas and ranges like 3306,9000-9005. Default: the mesh's."""
    inbound_policy: NotRequired[str]
    """Who may call it: all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny or
    audit. Default: the mesh's.
    """
    cpu_request: NotRequired[pulumi.Input[str]]
    """CPU that its container asks for, as a quantity. Default: 50m."""
    memory_request: NotRequired[pulumi.Input[str]]
    """Memory that its container asks for, as a quantity. Default: 64Mi."""
    memory_limit: NotRequired[pulumi.Input[str]]
    """Memory at which its container is killed, as a quantity. Default: 256Mi."""
    user: NotRequired[pulumi.Input[int]]
    """User id of its container; 2102 is the proxy's. Default: 65532."""


class MeshedWorkload(pulumi.ComponentResource):
    """A workload with its proxy, its own service account (and so its own identity), and a Service if it has a port."""

    name: pulumi.Output[str]
    """Its name, which is also its service account's and its Service's."""
    service_account: pulumi.Output[str]
    """Namespace and name of the account that its identity comes from."""
    address: pulumi.Output[str]
    """Where it is called inside the cluster, host:port; empty without a port."""

    def __init__(self, name: str, args: MeshedWorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:MeshedWorkload", name, {}, opts)
        # What a component waits for does not reach its children by itself, and a pod that starts before the injector is
        # there starts outside the mesh.
        waits = pulumi.ResourceOptions(depends_on=opts.depends_on if opts is not None else None)
        child = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(parent=self), waits)
        kind, port = _checked(name, "kind", KINDS, args.get("kind", "Deployment")), args.get("port", 0)
        port = int(_checked(name, "port", PORT, str(int(port))))
        further = pulumi.Output.from_input(args.get("labels") or {})
        own = {"app": name, labels.PART_OF: name, labels.MANAGED_BY: "tulle"}
        metadata: Any = {
            "name": name,
            "namespace": args["namespace"],
            "labels": further.apply(lambda given: {**given, **own}),
        }
        account = k8s.core.v1.ServiceAccount(
            f"{name}-account", metadata=metadata, automount_service_account_token=False, opts=child
        )
        if port:
            k8s.core.v1.Service(
                f"{name}-service",
                metadata=metadata,
                spec={"selector": {"app": name}, "ports": [{"name": "tcp", "port": port, "target_port": port}]},
                opts=child,
            )
        marks = {"labels": further.apply(lambda given: {**given, "app": name}), "annotations": _annotations(name, args)}
        template: dict[str, Any] = {"metadata": marks, "spec": _pod(name, args, port)}
        after = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[account]))
        made = _workload(name, kind, args, metadata, template, after)
        self.name = made.metadata.apply(lambda found: found.name or name)
        namespace = pulumi.Output.from_input(args["namespace"])
        self.service_account = pulumi.Output.concat(namespace, "/", name)
        self.address = pulumi.Output.concat(name, ".", namespace, f":{port}") if port else pulumi.Output.from_input("")
        outputs = {"name": self.name, "serviceAccount": self.service_account, "address": self.address}
        self.register_outputs(outputs)


def _workload(name: str, kind: str, args: MeshedWorkloadArgs, metadata: Any, template: Any, opts: Any) -> Any:
    selector = {"match_labels": {"app": name}}
    spec = {"replicas": args.get("replicas", 1), "selector": selector, "template": template}
    if kind == "Job":
        template["spec"]["restart_policy"] = "OnFailure"
        return k8s.batch.v1.Job(f"{name}-job", metadata=metadata, spec={"template": template}, opts=opts)
    if kind == "StatefulSet":
        spec["service_name"] = name
        return k8s.apps.v1.StatefulSet(f"{name}-set", metadata=metadata, spec=spec, opts=opts)
    return k8s.apps.v1.Deployment(f"{name}-deployment", metadata=metadata, spec=spec, opts=opts)


def _pod(name: str, args: MeshedWorkloadArgs, port: int) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": args["image"],
        "resources": {
            "requests": {"cpu": args.get("cpu_request", "50m"), "memory": args.get("memory_request", "64Mi")},
            "limits": {"memory": args.get("memory_limit", "256Mi")},
        },
        "securityContext": {**container_security(), "runAsUser": args.get("user", 65532)},
    }
    if port:
        container["ports"] = [{"name": "tcp", "containerPort": port}]
    if "command" in args:
        container["command"] = args["command"]
    if "environment" in args:
        given = pulumi.Output.from_input(args["environment"])
        container["env"] = given.apply(lambda found: [{"name": key, "value": found[key]} for key in sorted(found)])
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
    }


def _annotations(name: str, args: MeshedWorkloadArgs) -> dict[str, str]:
    annotations = {labels.INJECT: "enabled"}
    if "opaque_ports" in args:
        ports = _checked(name, "opaque_ports", PORTS, args["opaque_ports"])
        annotations[f"{labels.CONFIG_PREFIX}opaque-ports"] = ports
    if "inbound_policy" in args:
        policy = _checked(name, "inbound_policy", POLICIES, args["inbound_policy"])
        annotations[f"{labels.CONFIG_PREFIX}default-inbound-policy"] = policy
    return annotations


def _checked(name: str, argument: str, form: Any, text: str) -> str:
    try:
        form.parse(text)
    except ValueError:
        raise pulumi.RunError(f"{name}: {argument} is {text!r}, but must be {form.allowed}") from None
    return text
