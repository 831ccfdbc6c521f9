"""One allowed and one refused example of each rule, with words that the refusal says. Everything is made here: the
policy pack's own environment is shown the same examples.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from components.trust import authority
from policies.rules.model import CONFIG, Resource

NOW: Final = datetime.datetime.now(datetime.UTC)
DIGEST: Final = "registry.example/tulle/proxy@sha256:" + "0" * 64
SELF: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Example:
    """What is allowed, what is refused, and what the refusal names."""

    allowed: list[Resource]
    refused: list[Resource]
    words: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def k8s(kind: str, name: str, namespace: str = "", **properties: Any) -> Resource:
    """A Kubernetes object; the rules look at no group, so there is one."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **properties.pop("metadata", {})}
    return Resource(f"kubernetes:core/v1:{kind}", name, {"kind": kind, "metadata": metadata, **properties})


def deployment(name: str, *containers: Mapping[str, Any], replicas: int = 1, **pod: Any) -> Resource:
    labels = {"app.kubernetes.io/component": name, "app.kubernetes.io/part-of": "tulle"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [dict(each) for each in containers], **pod}}
    spec = {"replicas": replicas, "template": template}
    return k8s("Deployment", name, "tulle", metadata={"labels": labels}, spec=spec)


def budget(name: str) -> Resource:
    selector = {"matchLabels": {"app.kubernetes.io/component": name}}
    return k8s("PodDisruptionBudget", name, "tulle", spec={"selector": selector})


def webhook(*excluded: str) -> Resource:
    expression = {"key": SELF, "operator": "NotIn", "values": list(excluded)}
    hook = {
        "name": "meshed.injector.tulle.io",
        "failurePolicy": "Fail",
        "clientConfig": {"service": {"name": "injector", "namespace": "tulle"}},
        "namespaceSelector": {"matchExpressions": [expression]},
    }
    return k8s("MutatingWebhookConfiguration", "tulle-injector", webhooks=[hook])


def prometheus(*flags: str) -> Resource:
    container = {
        "name": "prometheus",
        "command": ["prometheus", "--storage.tsdb.path=/data", *flags],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return deployment("prometheus", container, volumes=[{"name": "data", "emptyDir": {"sizeLimit": "8Gi"}}])


def injector_config(**proxy: str) -> Resource:
    return k8s("ConfigMap", "injector-config", "tulle", data={"config.json": json.dumps({"proxy": proxy})})


def anchor(days: int) -> authority.KeyPair:
    """An anchor with this much life left."""
    return authority.make_anchor("tulle", "cluster.local", NOW - authority.ANCHOR_LIFETIME + datetime.timedelta(days))


def _issuer(bundle: authority.KeyPair, brought: authority.KeyPair) -> Resource:
    properties = {"bundle": bundle.certificate, "brought": brought.certificate}
    return Resource("pulumi-python:dynamic/tulle:Issuer", "issuer", properties)


def _trust() -> dict[str, Example]:
    token = "pulumi-python:dynamic/tulle:TrustAnchor"
    long, short, gone = anchor(3000), anchor(20), anchor(-1)
    issuer = authority.make_issuer(long, "tulle", "cluster.local", NOW)
    bundle = {"trust.bundle": long.certificate}
    return {
        "anchor-protected": Example(
            [Resource(token, "anchor", {}, protect=True)], [Resource(token, "anchor", {})], "trust.protect"
        ),
        "no-private-key": Example(
            [k8s("ConfigMap", "bundle", "tulle", data={"ca": long.certificate}), Resource(CONFIG, "s", bundle)],
            [Resource(CONFIG, "s", {"trust.bundle": long.certificate + long.key})],
            "trust.bundle",
        ),
        "certificates-current": Example(
            [Resource("tulle:index:Mesh", "tulle", {"trustBundle": long.certificate})],
            [Resource("tulle:index:Mesh", "tulle", {"trustBundle": long.certificate + short.certificate})],
            "in less than 30 days",
        ),
        "issuer-shorter-than-anchor": Example(
            [_issuer(long, issuer)], [_issuer(gone, issuer)], "after the last anchor"
        ),
    }


def _access() -> dict[str, Example]:
    def rules(*verbs: str) -> Resource:
        return k8s("Role", "r", "tulle", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}])

    meshed = {"annotations": {"linkerd.io/inject": "enabled"}}
    own = {"labels": {"config.linkerd.io/admission-webhooks": "disabled"}}
    return {
        "namespaces-annotated": Example(
            [
                k8s("Namespace", "shop", metadata=meshed),
                k8s("Namespace", "tulle", metadata=own),
                k8s("Namespace", "old"),
            ],
            [k8s("Namespace", "shop")],
            "linkerd.io/inject is None",
            {"exempt": ["old"]},
        ),
        "no-wildcard-rbac": Example([rules("get", "list")], [rules("get", "*")], "verbs ['get', '*']"),
        "inbound-policy": Example(
            [injector_config(inboundPolicy="all-authenticated"), k8s("ConfigMap", "other", "tulle", data={})],
            [injector_config(inboundPolicy="all-unauthenticated")],
            "the default inbound policy is all-unauthenticated",
        ),
        "webhook-replicas": Example(
            [webhook("tulle"), deployment("injector", replicas=2)],
            [webhook("tulle"), deployment("injector", replicas=1)],
            "has 1 replicas",
        ),
        "webhook-spares-itself": Example([webhook("kube-system", "tulle")], [webhook("kube-system")], "NotIn tulle"),
    }


def _workloads() -> dict[str, Example]:
    asked = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    part = {"requests": {"cpu": "10m"}}
    return {
        "proxy-image-by-digest": Example(
            [deployment("web", {"name": "linkerd-proxy", "image": DIGEST}, {"name": "web", "image": "web:1"})],
            [deployment("web", {"name": "linkerd-proxy", "image": "proxy:1"})],
            "linkerd-proxy runs proxy:1",
        ),
        "resources-set": Example(
            [deployment("web", {"name": "web", "resources": asked}, initContainers=[{"name": "init"}])],
            [deployment("web", {"name": "web", "resources": part})],
            "requests.memory, limits.memory",
        ),
        "replicas-and-budget": Example(
            [deployment("identity", replicas=2), budget("identity"), deployment("web", replicas=1)],
            [deployment("identity", replicas=1), budget("identity")],
            "1 replicas, at least 2",
        ),
        "prometheus-retention-fits": Example(
            [prometheus("--storage.tsdb.retention.time=6h"), prometheus("--storage.tsdb.retention.time=9d")],
            [prometheus("--storage.tsdb.retention.time=30d")],
            "retention 30d needs about 15.0 of 8.0 GiB",
        ),
    }


EXAMPLES: Final[Mapping[str, Example]] = {**_trust(), **_access(), **_workloads()}
