"""What the stack declares of telemetry: Prometheus, itself meshed, with its configuration and rules."""

import pulumi
import pulumi_kubernetes as k8s

from components.args import ComponentArgs
from components.telemetry.scraping import rules, scrape_config
from components.workload import ControlWorkload, hash_of, labels_of

CONFIG_MAP = "prometheus-config"
PORT = 9090
VOLUME_SIZE = "8Gi"
RETENTION_SIZE = "7GB"
"""Prometheus's GB is a GiB; the rest of the volume is for its write-ahead log."""


class Prometheus(pulumi.ComponentResource):
    """The mesh's Prometheus, or the address of another one."""

    url: pulumi.Output[str]
    """Where it is asked, from inside the cluster."""

    def __init__(self, name: str, args: ComponentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tulle:index:Prometheus", name, {}, opts)
        mesh = args["mesh"]
        telemetry, names = mesh["telemetry"], mesh["names"]
        config = scrape_config(names["mesh_namespace"], telemetry["scrape_interval"])
        derived = rules(telemetry["scrape_interval"])
        config_map = k8s.core.v1.ConfigMap(
            f"{name}-config",
            metadata={"name": CONFIG_MAP, "namespace": args["namespace"], "labels": labels_of("prometheus")},
            data={"prometheus.yml": config, "rules.yml": derived},
            opts=pulumi.ResourceOptions(parent=self),
        )
        ControlWorkload(
            name,
            {
                "mesh": mesh,
                "namespace": args["namespace"],
                "after": [*args["after"], config_map],
                "component": "prometheus",
                "image": mesh["images"]["prometheus"],
                "command": [
                    "prometheus",
                    "--config.file=/etc/prometheus/prometheus.yml",
                    "--storage.tsdb.path=/prometheus",
                    f"--storage.tsdb.retention.time={telemetry['retention']}",
                    # A full volume ends Prometheus: samples go early instead.
                    f"--storage.tsdb.retention.size={RETENTION_SIZE}",
                    f"--web.listen-address=0.0.0.0:{PORT}",
                ],
                "services": [
                    {
                        "name": "prometheus",
                        "headless": False,
                        "ports": [{"name": "http", "port": PORT, "target": PORT}],
                    }
                ],
                "replicas": 1,
                "config": hash_of(config, derived),
                "cluster_rules": [{"api_groups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
                "volumes": [
                    {"name": "config", "configMap": {"name": CONFIG_MAP}},
                    {"name": "data", "emptyDir": {"sizeLimit": VOLUME_SIZE}},
                ],
                "mounts": [
                    {"name": "config", "mountPath": "/etc/prometheus", "readOnly": True},
                    {"name": "data", "mountPath": "/prometheus"},
                ],
                "probes": {"live": "/-/healthy", "ready": "/-/ready", "port": "http"},
                # The API server's proxy, through which `tulle stat` asks, has no identity in the mesh.
                "inbound_policy": "cluster-unauthenticated",
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}},
            },
            pulumi.ResourceOptions(parent=self),
        )
        self.url = pulumi.Output.from_input(f"http://prometheus.{names['mesh_namespace']}:{PORT}")
        self.register_outputs({"url": self.url})
