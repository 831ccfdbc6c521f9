"""Kubernetes objects for tests, as plain values: namespaces, the demo's programs, Services, Jobs. Nothing is applied
here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.api import labels

Json = dict[str, Any]

PORTS = {"web": 8080, "api": 8080, "traffic": 8081, "tcp_server": 9000, "tcp_client": 8081}
"""The port on which each demo program serves."""
HEALTH = {"web": 8080, "api": 8080, "traffic": 8081, "tcp_server": 8081, "tcp_client": 8081}


def namespace(name: str, meshed: bool) -> Json:
    """A namespace, asked into the mesh as `MeshedNamespace` does it."""
    metadata: Json = {"name": name, "labels": {"tulle.io/test": "true"}}
    if meshed:
        metadata["annotations"] = {labels.INJECT: "enabled"}
        metadata["labels"][labels.MESHED_NAMESPACE] = "enabled"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def container(name: str, image: str, command: Sequence[str], env: Mapping[str, str], **more: Any) -> Json:
    """An unprivileged container."""
    entries: list[Json] = [{"name": key, "value": value} for key, value in env.items()]
    entries.append({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": entries,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **more,
    }


def idle_container(name: str, image: str, **more: Any) -> Json:
    """A container that does nothing, and ends at once when asked to."""
    program = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); signal.pause()"
    return container(name, image, ["python3", "-c", program], {}, **more)


def app_container(app: str, image: str, env: Mapping[str, str]) -> Json:
    """One of the demo's programs, with its ports and its readiness."""
    ports = [{"name": "serve", "containerPort": PORTS[app]}]
    if HEALTH[app] != PORTS[app]:
        ports.append({"name": "health", "containerPort": HEALTH[app]})
    probe = {"httpGet": {"path": "/healthz", "port": HEALTH[app]}, "periodSeconds": 1}
    command = ["python3", "-m", f"components.demo.{app}"]
    return container("app", image, command, env, ports=ports, readinessProbe=probe)


def pod(
    name: str, namespace: str, containers: Sequence[Json], annotations: Mapping[str, str] | None = None, **spec: Any
) -> Json:
    """A pod without a controller."""
    metadata: Json = {"name": name, "namespace": namespace, "labels": {"app": name}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    defaults = {"terminationGracePeriodSeconds": 30, "enableServiceLinks": False}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**defaults, "containers": list(containers), **spec},
    }


def deployment(
    name: str,
    namespace: str,
    containers: Sequence[Json],
    replicas: int = 1,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """A Deployment whose pods carry the label `app`; a rollout never takes a pod away before its successor is ready."""
    template = pod(name, namespace, containers, annotations, **spec)
    metadata = {key: value for key, value in template["metadata"].items() if key in ("labels", "annotations")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def job(name: str, namespace: str, containers: Sequence[Json]) -> Json:
    """A Job that is tried once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"restartPolicy": "Never", "containers": list(containers)},
            },
        },
    }


def service(name: str, namespace: str, port: int) -> Json:
    """A Service in front of the pods with label `app`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "serve", "port": port, "targetPort": port}]},
    }
