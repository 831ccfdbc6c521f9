"""What a cluster's nodes and network must offer the mesh: pure, a function of the settings alone.

Kernel features carry the names under which the Ansible role `node` tries them, so that what is asked for here is what
is proven there. Nothing here looks at a node.
"""

import hashlib
import json
from typing import Any, Final

from components.args import MeshSettings
from components.identity.authority import SKEW
from proxy.api import labels

NATIVE_SIDECARS: Final = "1.29"
"""The first Kubernetes whose API server has native sidecars by default."""
POD_CAPABILITIES: Final = ("NET_ADMIN", "NET_RAW")
"""What a pod's init container needs to set the redirection; with a CNI plugin no container needs it."""
CNI_PATHS: Final = (
    ("/opt/cni/bin", "cni.enabled: the plugin that redirects pods (cni_bin_dir of the role `cni`, if it is elsewhere)"),
    ("/etc/cni/net.d", "cni.enabled: the network's configuration, which names it (cni_conf_dir)"),
)

SETTINGS: Final = (
    ("net.ipv4.ip_forward", 1, "packets between pods of different nodes are forwarded"),
    ("net.netfilter.nf_conntrack_max", 131072, "a full table drops connections; a request needs three"),
)
"""Kernel settings of a node, each with the least it may be; the role `node` raises more of them by habit."""


def node_requirements(settings: MeshSettings) -> dict[str, Any]:
    """Kubernetes, kernel features, ports, paths, clock and what each meshed pod costs; plain data for JSON."""
    proxy = settings["proxy"]
    found: dict[str, Any] = {
        "kubernetes": {"minimum": NATIVE_SIDECARS if proxy["sidecar"] == "native" else "", "why": _sidecars(settings)},
        "kernel": kernel(settings),
        "settings": [{"name": name, "minimum": least, "why": why} for name, least, why in SETTINGS],
        "ports": ports(settings),
        "paths": [{"path": path, "why": why} for path, why in CNI_PATHS if settings["cni"]["enabled"]],
        "clock": {"maxSkewSeconds": int(SKEW.total_seconds()), "why": "certificates begin this much before their time"},
        "pods": {
            "capabilities": [] if settings["cni"]["enabled"] else list(POD_CAPABILITIES),
            "reservedPorts": [labels.OUTBOUND_PORT, labels.INBOUND_PORT, labels.TAP_PORT, labels.ADMIN_PORT],
            "reservedUids": [labels.PROXY_UID],
            "cpuRequest": proxy["cpu_request"],
            "memoryRequest": proxy["memory_request"],
            "memoryLimit": proxy["memory_limit"],
        },
    }
    return {**found, "hash": fingerprint(found)}


def fingerprint(requirements: dict[str, Any]) -> str:
    """What a report on nodes was judged by: changes with what is asked of a node, not with what a pod costs."""
    asked = {name: requirements[name] for name in ("kernel", "settings", "paths", "clock")}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def kernel(settings: MeshSettings) -> list[dict[str, Any]]:
    """Features of the kernel, by the names of the role `node`."""
    redirect = "each meshed pod's TCP is redirected to its proxy (nat, REDIRECT, owner)"
    found = [
        {"feature": "iptables_redirect", "why": redirect},
        {"feature": "iptables_matches", "why": "ports that bypass the proxy, and rules that can be told apart"},
        {"feature": "conntrack", "why": "the proxy asks the kernel for a connection's original destination"},
    ]
    if settings["proxy"]["ipv6"]:
        found.append({"feature": "ip6tables_redirect", "why": f"proxy.ipv6: {redirect}"})
    return found


def ports(settings: MeshSettings) -> list[dict[str, Any]]:
    """What a firewall or a network policy must let through, as TCP to pods; no port of a node is used."""
    mesh = settings["names"]["mesh_namespace"]
    found = [
        _port("any", "meshed pods", "meshed pods", "HTTP goes to the application's own port"),
        _port(labels.INBOUND_PORT, "meshed pods", "meshed pods", "other protocols go to the peer's proxy"),
        _port(labels.IDENTITY_PORT, "meshed pods", f"{mesh}/identity", "certificates"),
        _port(labels.DESTINATION_PORT, "meshed pods", f"{mesh}/destination", "discovery"),
        _port(labels.INJECTOR_PORT, "API server", f"{mesh}/injector", "the admission webhook"),
        _port(labels.ADMIN_PORT, "kubelet", "meshed pods", "the proxy's probes"),
        _port(labels.CONTROLLER_ADMIN_PORT, "kubelet", f"{mesh}/*", "the control plane's probes"),
    ]
    telemetry = settings["telemetry"]
    if telemetry["enabled"] or telemetry["url"]:
        prometheus = telemetry["url"] or f"{mesh}/prometheus"
        found.append(_port(labels.ADMIN_PORT, prometheus, "meshed pods", "metrics of proxies"))
        found.append(_port(labels.CONTROLLER_ADMIN_PORT, prometheus, f"{mesh}/*", "metrics of the control plane"))
    return found


def _port(port: int | str, source: str, target: str, why: str) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP", "from": source, "to": target, "why": why}


def _sidecars(settings: MeshSettings) -> str:
    mode = settings["proxy"]["sidecar"]
    if mode == "classic":
        return "proxy.sidecar=classic: any supported Kubernetes"
    if mode == "native":
        return f"proxy.sidecar=native: native sidecars, Kubernetes {NATIVE_SIDECARS} and newer"
    return f"proxy.sidecar=auto: native sidecars from Kubernetes {NATIVE_SIDECARS} on, classic ones before"
