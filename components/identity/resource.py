"""What the stack declares of identity: the process that signs workloads' certificates, and its issuer."""

import pulumi

from components.args import ComponentArgs
from components.external.resource import GROUP
from components.revision.names import named
from components.trust import reports
from components.workload import ControlWorkload, images_of
from proxy.api import labels

ISSUER_DIR = "/var/run/tulle/issuer"
BUNDLE_DIR = "/var/run/tulle/trust"


class Identity(pulumi.ComponentResource):
    """Certificates for the mesh's workloads."""

    workload: ControlWorkload
    """Its Deployment and what is around it."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Identity", name, {}, opts)
        mesh, revision = args["mesh"], args.get("revision", "")
        names = mesh["names"]
        port = labels.IDENTITY_PORT
        issuer = mesh["trust"]["issuer_secret"] or labels.ISSUER_SECRET
        self.workload = ControlWorkload(
            name,
            {
                "mesh": mesh,
                "namespace": args["namespace"],
                "after": args["after"],
                "component": "identity",
                "revision": revision,
                "image": images_of(mesh, revision)["control"],
                "command": [
                    "python3",
                    "-m",
                    "components.identity",
                    f"--mesh-namespace={names['mesh_namespace']}",
                    f"--trust-domain={names['trust_domain']}",
                    f"--issuer-dir={ISSUER_DIR}",
                    f"--bundle={BUNDLE_DIR}/{labels.BUNDLE_KEY}",
                    f"--leaf-lifetime={mesh['leaf_lifetime']}",
                ],
                "services": [
                    {
                        "name": f"{named('identity', revision)}-headless",
                        "headless": True,
                        "ports": [{"name": "grpc", "port": port, "target": port}],
                    }
                ],
                "cluster_rules": [
                    {"api_groups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                    # A join token is spent in the status; what a workload is, identity cannot change.
                    {"api_groups": [GROUP], "resources": ["externalworkloads"], "verbs": ["get"]},
                    {"api_groups": [GROUP], "resources": ["externalworkloads/status"], "verbs": ["update"]},
                ],
                "mesh_rules": [
                    # What proxies report of the bundle they trust; a create cannot be limited by name.
                    {"api_groups": [""], "resources": ["configmaps"], "verbs": ["create"]},
                    {
                        "api_groups": [""],
                        "resources": ["configmaps"],
                        "resource_names": [reports.NAME],
                        "verbs": ["get", "update"],
                    },
                ],
                "volumes": [
                    {"name": "issuer", "secret": {"secretName": issuer, "defaultMode": 0o440}},
                    {"name": "bundle", "configMap": {"name": labels.BUNDLE_CONFIG_MAP}},
                ],
                "mounts": [
                    {"name": "issuer", "mountPath": ISSUER_DIR, "readOnly": True},
                    {"name": "bundle", "mountPath": BUNDLE_DIR, "readOnly": True},
                ],
            },
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
