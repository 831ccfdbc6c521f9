"""What the stack declares of the demo: traffic -> web -> api over HTTP/1.1 and a raw-TCP pair, meshed; and one client
outside the mesh.
"""

from typing import Any, TypeAlias, cast

import pulumi
import pulumi_kubernetes as k8s

from components.args import InjectionReadyArgs, MeshSettings
from components.injector.config import encode_config
from components.injector.resource import InjectionReady, Injector, MeshedNamespace
from components.workload import (
    CONFIG_HASH,
    container_security,
    hash_of,
    injector_config,
    labels_of,
    pod_security,
    probe,
)
from proxy.api import labels

Template: TypeAlias = k8s.core.v1.PodTemplateSpecArgsDict
MESHED = "demo"
UNMESHED = "demo-unmeshed"
HTTP_PORT = 8080
TCP_PORT = 9000
HEALTH_PORT = 8081
"""Where traffic and the TCP pair answer for their health and counts; web and api do so on their own port."""


class Demo(pulumi.ComponentResource):
    """The demo application."""

    def __init__(
        self, name: str, mesh: MeshSettings, injector: Injector, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tulle:index:Demo", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        inside = MeshedNamespace(f"{name}-meshed", {"namespace": MESHED}, child)
        outside = k8s.core.v1.Namespace(
            f"{name}-unmeshed",
            metadata={"name": UNMESHED, "labels": {labels.PART_OF: "tulle", labels.MANAGED_BY: "tulle"}},
            opts=child,
        )
        injected = encode_config(injector_config(mesh)).decode()
        waits: list[pulumi.Resource] = [injector.webhooks, inside]
        if not mesh["rendered"]:
            # Of what is declared: the Deployment's generation also grows when somebody scales it.
            trigger = hash_of(injected, mesh["images"]["control"])
            proof = {"cluster": mesh["cluster"], "namespace": inside.name, "trigger": trigger}
            options = pulumi.ResourceOptions(parent=self, depends_on=waits)
            waits = [InjectionReady(f"{name}-ready", cast(InjectionReadyArgs, proof), options)]
        meshed = pulumi.ResourceOptions(parent=self, depends_on=waits)
        # Its pods are patched by the webhook, so a change of the proxy's settings must roll them to reach them.
        settings = hash_of(injected)
        web, server = f"http://web.{MESHED}:{HTTP_PORT}/", f"tcp-server.{MESHED}:{TCP_PORT}"
        rate = str(mesh["demo"]["rate"])
        for app, module, replicas, port, environment in (
            ("api", "api", 3, HTTP_PORT, {}),
            ("web", "web", 2, HTTP_PORT, {"UPSTREAM": f"http://api.{MESHED}:{HTTP_PORT}/"}),
            ("traffic", "traffic", 1, 0, {"TARGET": web, "RATE": rate}),
            ("tcp-server", "tcp_server", 1, TCP_PORT, {}),
            ("tcp-client", "tcp_client", 1, 0, {"TARGET": server}),
        ):
            if port:
                _service(f"{name}-{app}", app, inside.name, port, child)
            template = _template(mesh, app, module, port, environment, settings)
            _deployment(f"{name}-{app}", app, inside.name, replicas, template, meshed)
        template = _template(mesh, "traffic", "traffic", 0, {"TARGET": web, "RATE": "2"}, "")
        _deployment(f"{name}-outside", "traffic", outside.metadata["name"], 1, template, child)
        self.register_outputs({})


def _service(name: str, app: str, namespace: pulumi.Input[str], port: int, opts: pulumi.ResourceOptions) -> None:
    protocol = "http" if port == HTTP_PORT else "tcp"
    k8s.core.v1.Service(
        name,
        metadata={"name": app, "namespace": namespace, "labels": _labels(app)},
        spec={"selector": {"app": app}, "ports": [{"name": protocol, "port": port, "target_port": port}]},
        opts=opts,
    )


def _deployment(
    name: str,
    app: str,
    namespace: pulumi.Input[str],
    replicas: int,
    template: Template,
    opts: pulumi.ResourceOptions,
) -> None:
    k8s.apps.v1.Deployment(
        f"{name}-deployment",
        metadata={"name": app, "namespace": namespace, "labels": _labels(app)},
        spec={"replicas": replicas, "selector": {"match_labels": {"app": app}}, "template": template},
        opts=opts,
    )


def _template(
    mesh: MeshSettings, app: str, module: str, port: int, environment: dict[str, str], settings: str
) -> Template:
    images = mesh["images"]
    health = port if port == HTTP_PORT else HEALTH_PORT
    ports = {
        **({"http" if port == HTTP_PORT else "tcp": port} if port else {}),
        **({"health": health} if health != port else {}),
    }
    container: dict[str, Any] = {
        "name": app,
        "image": images["control"],
        "imagePullPolicy": images["pull_policy"],
        "command": ["python3", "-m", f"components.demo.{module}"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": key, "value": value} for key, value in environment.items()),
        ],
        "ports": [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports.items()],
        "livenessProbe": probe("/healthz", health, periodSeconds=10),
        "readinessProbe": probe("/healthz", health, periodSeconds=2),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    template = {
        "metadata": {"labels": _labels(app), "annotations": {CONFIG_HASH: settings} if settings else {}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "containers": [container],
            **({"imagePullSecrets": [{"name": images["pull_secret"]}]} if images["pull_secret"] else {}),
        },
    }
    return cast(Template, template)


def _labels(app: str) -> dict[str, str]:
    return {"app": app, **labels_of("demo")}
