"""Kubernetes objects as discovery reads them, built from a few words."""

from typing import Any

import msgspec

from components.destination import objects
from components.destination.external import ExternalFacts, external_facts
from components.destination.model import (
    Mesh,
    NamespaceFacts,
    PodFacts,
    ServiceFacts,
    SliceFacts,
    namespace_facts,
    pod_facts,
    service_facts,
    slice_facts,
)
from proxy.api import labels

MESH = Mesh("tulle", "cluster.local")
Json = dict[str, Any]


def raw_pod(
    name: str,
    ip: str | list[str] = "",
    *,
    namespace: str = "demo",
    meshed: bool = False,
    uid: str = "",
    account: str = "web",
    owner: tuple[str, str] | None = None,
    template: str = "",
    annotations: dict[str, str] | None = None,
    phase: str = "Running",
    host_network: bool = False,
    skip: str = "4190,4191,4567,4568",
    opaque: str | None = None,
    leaving: bool = False,
    admin: int = 4191,
) -> Json:
    """A Pod as the API writes it."""
    ips = [ip] if isinstance(ip, str) else ip
    inits: list[Json] = []
    if meshed:
        env = [{"name": "TULLE_PROXY_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        if opaque is not None:
            env.append({"name": "TULLE_PROXY_INBOUND_OPAQUE_PORTS", "value": opaque})
        inits = [
            {"name": labels.INIT_CONTAINER, "args": ["--proxy-uid", "2102", "--inbound-skip-ports", skip]},
            {"name": labels.PROXY_CONTAINER, "env": env, "ports": [{"name": "linkerd-admin", "containerPort": admin}]},
        ]
    pod_labels = {labels.CONTROL_PLANE_NAMESPACE: "tulle"} if meshed else {}
    if template:
        pod_labels["pod-template-hash"] = template
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "labels": pod_labels or None,
            "annotations": annotations,
            "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else None,
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
        },
        "spec": {
            "serviceAccountName": account,
            "hostNetwork": host_network,
            "nodeName": "node-1",
            "initContainers": inits or None,
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {"phase": phase, "podIP": ips[0] if ips else "", "podIPs": [{"ip": each} for each in ips if each]},
    }


def pod(name: str, ip: str | list[str] = "", **words: Any) -> PodFacts:
    """A Pod's facts."""
    return pod_facts(msgspec.convert(raw_pod(name, ip, **words), objects.Pod), MESH)


def service(
    name: str,
    ip: str | list[str],
    *ports: tuple[int, str],
    namespace: str = "demo",
    annotations: dict[str, str] | None = None,
    policy: str = "Cluster",
) -> ServiceFacts:
    """A Service's facts; ports are numbers and names."""
    ips = [ip] if isinstance(ip, str) else ip
    return service_facts(
        msgspec.convert(
            {
                "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
                "spec": {
                    "internalTrafficPolicy": policy,
                    "clusterIP": ips[0],
                    "clusterIPs": ips,
                    "ports": [
                        *({"port": port, "name": port_name, "protocol": "TCP"} for port, port_name in ports),
                        {"port": 53, "name": "dns", "protocol": "UDP"},
                    ],
                },
            },
            objects.Service,
        )
    )


def endpoint(ip: str, pod: str = "", *, uid: str = "", zone: str = "", node: str = "", **conditions: bool) -> Json:
    """An endpoint as the API writes it."""
    reference = {"kind": "Pod", "name": pod, "namespace": "demo", "uid": uid or f"uid-{pod}"}
    return {
        "addresses": [ip],
        "conditions": conditions,
        **({"targetRef": reference} if pod else {}),
        **({"zone": zone} if zone else {}),
        **({"nodeName": node} if node else {}),
    }


def endpoint_slice(
    name: str,
    service: str,
    *endpoints: Json,
    ports: tuple[tuple[str, int], ...] = (("http", 8080),),
    namespace: str = "demo",
    family: str = "IPv4",
) -> SliceFacts:
    """An EndpointSlice's facts; ports are names and numbers."""
    return slice_facts(
        msgspec.convert(
            {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": family,
                "endpoints": list(endpoints) or None,
                "ports": [{"name": port_name, "port": port, "protocol": "TCP"} for port_name, port in ports],
            },
            objects.EndpointSlice,
        )
    )


def namespace(name: str = "demo", opaque: str | None = None) -> NamespaceFacts:
    """A Namespace's facts."""
    annotations = None if opaque is None else {"config.linkerd.io/opaque-ports": opaque}
    meta = {"metadata": {"name": name, "annotations": annotations}}
    return namespace_facts(msgspec.convert(meta, objects.Namespace))


def raw_external(
    name: str,
    ip: str = "192.0.2.10",
    *,
    namespace: str = "demo",
    account: str = "machine",
    ports: tuple[tuple[str, int], ...] = (("http", 8080),),
    labels: dict[str, str] | None = None,
    ready: bool = True,
    server_name: str = "",
) -> Json:
    """An ExternalWorkload as the API writes it."""
    named = server_name or f"{account}.{namespace}.serviceaccount.identity.tulle.cluster.local"
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"} if labels is None else labels},
        "spec": {
            "meshTLS": {"identity": f"spiffe://cluster.local/ns/{namespace}/sa/{account}", "serverName": named},
            "workloadIPs": [{"ip": ip}],
            "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def external(name: str, ip: str = "192.0.2.10", **words: Any) -> ExternalFacts:
    """What counts of it."""
    return external_facts(msgspec.convert(raw_external(name, ip, **words), objects.ExternalWorkload), MESH)
