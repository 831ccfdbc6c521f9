"""What the stack declares of destination: the process that tells proxies where a service's endpoints are and who they
are.
"""

import pulumi

from components.args import ComponentArgs
from components.external.resource import GROUP
from components.revision.names import named
from components.workload import ControlWorkload, images_of
from proxy.api import labels


class Destination(pulumi.ComponentResource):
    """Discovery for the mesh's proxies."""

    workload: ControlWorkload
    """Its Deployment and what is around it."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Destination", name, {}, opts)
        mesh, revision = args["mesh"], args.get("revision", "")
        names, port = mesh["names"], labels.DESTINATION_PORT
        read = ["list", "watch"]
        self.workload = ControlWorkload(
            name,
            {
                "mesh": mesh,
                "namespace": args["namespace"],
                "after": args["after"],
                "component": "destination",
                "revision": revision,
                "image": images_of(mesh, revision)["control"],
                "command": [
                    "python3",
                    "-m",
                    "components.destination",
                    f"--mesh-namespace={names['mesh_namespace']}",
                    f"--trust-domain={names['trust_domain']}",
                    f"--cluster-domain={names['cluster_domain']}",
                    f"--default-opaque-ports={mesh['proxy']['opaque_ports']}",
                ],
                "services": [
                    {
                        "name": f"{named('destination', revision)}-headless",
                        "headless": True,
                        "ports": [{"name": "grpc", "port": port, "target": port}],
                    }
                ],
                "cluster_rules": [
                    {"api_groups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
                    {"api_groups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
                    {"api_groups": [GROUP], "resources": ["externalworkloads"], "verbs": read},
                    # On Pods that their network validator keeps from starting.
                    {"api_groups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
                ],
            },
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
