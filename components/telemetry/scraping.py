"""Pure: Prometheus's configuration and rules.

Every series of a proxy carries `namespace`, `pod` and exactly one of `deployment`, `statefulset`, `daemonset`, `job`,
`replicaset`: the labels that Linkerd's dashboards know.
"""

import json
from typing import Any, Final

from proxy.api import labels

OWNERS: Final = {"StatefulSet": "statefulset", "DaemonSet": "daemonset", "Job": "job"}
EXPIRY_SHARE: Final = 0.15
"""Of a leaf's life: renewal is due after two thirds of it, so less than this left means that renewal fails."""
ISSUER_EXPIRY: Final = "tulle_identity_issuer_expiry_timestamp_seconds"
ISSUER_LIFETIME: Final = "tulle_identity_issuer_lifetime_seconds"
ANCHOR_EXPIRY: Final = "tulle_identity_anchor_expiry_timestamp_seconds"
WEBHOOK_EXPIRY: Final = "tulle_injector_webhook_expiry_timestamp_seconds"
CALLS: Final = ((60, "info"), (30, "warning"), (7, "critical"))
"""Days before the end of a CA certificate at which people are told, and how loudly."""
LATE_SHARE: Final = 0.3
"""Of an issuer's life: the keeper renews it when a third is left, so with less than this it does not."""
WEBHOOK_DAYS: Final = 7
"""The injector renews its certificate ten days before the end."""


def scrape_config(mesh_namespace: str, interval: str) -> str:
    """prometheus.yml, as JSON (which is YAML)."""
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": _timeout(interval)},
        "rule_files": ["/etc/prometheus/rules.yml"],
        "scrape_configs": [_proxies(mesh_namespace), _controllers(mesh_namespace), _itself()],
    }
    return json.dumps(config, indent=2)


def rules(interval: str) -> str:
    """rules.yml: few recordings, and the alerts without which a mesh fails silently."""
    recordings = [
        _record("tulle:requests:rate1m", "sum by (namespace, deployment, direction, tls) (rate(request_total[1m]))"),
        _record(
            "tulle:success:ratio1m",
            'sum by (namespace, deployment) (rate(response_total{classification="success",direction="inbound"}[1m]))'
            ' / sum by (namespace, deployment) (rate(response_total{direction="inbound"}[1m]))',
        ),
    ]
    alerts = [
        _alert(
            "TulleCertificateExpiring",
            "(control_identity_cert_expiration_timestamp_seconds - time())"
            " / (control_identity_cert_expiration_timestamp_seconds - control_identity_cert_refresh_timestamp_seconds)"
            f" < {EXPIRY_SHARE}",
            "The certificate of {{ $labels.namespace }}/{{ $labels.pod }} is not being renewed: see identity's log.",
        ),
        _alert(
            "TulleIssuerNotRenewed",
            f"{ISSUER_EXPIRY} - time() < {LATE_SHARE} * {ISSUER_LIFETIME} and {ISSUER_EXPIRY} > 0",
            "The issuer is in the last third of its life and was not renewed: see the log of Deployment trust.",
        ),
        *_calls(
            "TulleIssuerExpiring",
            # An issuer whose whole life is short is not near its end before its last third.
            f"{ISSUER_EXPIRY} - time() < {{seconds}} and {ISSUER_EXPIRY} > 0 and {ISSUER_LIFETIME} > 3 * {{seconds}}",
            "The issuer expires within {days} days: `tulle check` says who renews it.",
        ),
        *_calls(
            "TulleAnchorExpiring",
            f"{ANCHOR_EXPIRY} - time() < {{seconds}}",
            "Trust anchor {{{{ $labels.anchor }}}} expires within {days} days: rotate it (README, Certificates).",
        ),
        _alert(
            "TulleWebhookCertificateExpiring",
            f"{WEBHOOK_EXPIRY} - time() < {WEBHOOK_DAYS * 86400} and {WEBHOOK_EXPIRY} > 0",
            "The webhook's certificate is not being renewed: see the injector's log.",
        ),
        _alert(
            "TulleIssuerMissing",
            f"{ISSUER_EXPIRY} == 0",
            "Identity on {{ $labels.pod }} has no issuer that it can use: see its log.",
        ),
        _alert(
            "TulleProxyUnreachable",
            'up{job="linkerd-proxy"} == 0',
            "Prometheus cannot read the proxy of {{ $labels.namespace }}/{{ $labels.pod }}.",
        ),
    ]
    groups = [
        {"name": "tulle-recordings", "interval": interval, "rules": recordings},
        {"name": "tulle-alerts", "rules": alerts},
    ]
    return json.dumps({"groups": groups}, indent=2)


def _proxies(mesh_namespace: str) -> dict[str, Any]:
    kind, name = "__meta_kubernetes_pod_controller_kind", "__meta_kubernetes_pod_controller_name"
    hash_label = "__meta_kubernetes_pod_label_pod_template_hash"
    return {
        "job_name": "linkerd-proxy",
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [
            _keep(["__meta_kubernetes_pod_container_name"], labels.PROXY_CONTAINER),
            _keep(["__meta_kubernetes_pod_container_port_name"], "linkerd-admin"),
            # Another mesh's proxies in the same cluster are not ours to read.
            _keep(["__meta_kubernetes_pod_label_linkerd_io_control_plane_ns"], mesh_namespace),
            {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Succeeded|Failed", "action": "drop"},
            # Prometheus's own proxy: traffic of a pod to itself is never redirected, so it would arrive in plaintext
            # from an address that is not loopback.
            _set(
                ["__meta_kubernetes_namespace", f"__meta_kubernetes_pod_label_{_meta(labels.COMPONENT)}"],
                f"{mesh_namespace};prometheus",
                "__address__",
                f"127.0.0.1:{labels.ADMIN_PORT}",
            ),
            _copy("__meta_kubernetes_namespace", "namespace"),
            _copy("__meta_kubernetes_pod_name", "pod"),
            _copy(f"__meta_kubernetes_pod_label_{_meta(labels.COMPONENT)}", "component"),
            # A Deployment's ReplicaSet is called <deployment>-<pod-template-hash>; the hash tells it from a bare one.
            _set([kind, name, hash_label], "ReplicaSet;(.+)-([0-9a-z]+);(.+)", "deployment", "$1"),
            _set([kind, name, hash_label], "ReplicaSet;(.+);", "replicaset", "$1"),
            *(_set([kind, name], f"{owner};(.+)", label, "$1") for owner, label in OWNERS.items()),
        ],
    }


def _controllers(mesh_namespace: str) -> dict[str, Any]:
    return {
        "job_name": "tulle-controllers",
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [mesh_namespace]}}],
        "relabel_configs": [
            _keep(["__meta_kubernetes_pod_container_port_name"], "admin"),
            # Those of revisions too.
            _keep([f"__meta_kubernetes_pod_label_{_meta(labels.COMPONENT)}"], "(identity|destination|injector)(-.+)?"),
            _copy("__meta_kubernetes_namespace", "namespace"),
            _copy("__meta_kubernetes_pod_name", "pod"),
            _copy(f"__meta_kubernetes_pod_label_{_meta(labels.COMPONENT)}", "component"),
        ],
    }


def _itself() -> dict[str, Any]:
    return {"job_name": "prometheus", "static_configs": [{"targets": ["127.0.0.1:9090"]}]}


def _keep(source: list[str], regex: str) -> dict[str, Any]:
    return {"source_labels": source, "regex": regex, "action": "keep"}


def _copy(source: str, target: str) -> dict[str, Any]:
    return {"source_labels": [source], "target_label": target}


def _set(source: list[str], regex: str, target: str, replacement: str) -> dict[str, Any]:
    return {"source_labels": source, "regex": regex, "target_label": target, "replacement": replacement}


def _record(name: str, expression: str) -> dict[str, str]:
    return {"record": name, "expr": expression}


def _calls(name: str, expression: str, summary: str) -> list[dict[str, Any]]:
    """One alert for each number of days, ever louder; only the loudest that applies fires."""
    found, quieter = [], 0
    for days, severity in reversed(CALLS):
        limited = expression.format(seconds=days * 86400)
        if quieter:
            limited = f"({limited}) unless ({expression.format(seconds=quieter * 86400)})"
        found.append(_alert(name, limited, summary.format(days=days), severity))
        quieter = days
    return found[::-1]


def _alert(name: str, expression: str, summary: str, severity: str = "warning") -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": "5m",
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def _meta(label: str) -> str:
    """A label's name as service discovery writes it."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def _timeout(interval: str) -> str:
    """A scrape may take as long as the interval, and at most ten seconds."""
    if interval.endswith("ms"):
        return interval
    return interval if interval.endswith("s") and int(interval[:-1]) < 10 else "10s"
