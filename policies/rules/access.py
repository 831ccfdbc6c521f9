"""Pure: rules about who may do what: namespaces, RBAC, inbound policy, webhooks."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

from policies.rules.model import Found, Parameters, Resource, Rule, at, document, items, unknown
from policies.rules.workloads import configures_injector

INJECT: Final = "linkerd.io/inject"
INBOUND: Final = "config.linkerd.io/default-inbound-policy"
EXEMPT: Final = "config.linkerd.io/admission-webhooks"
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"


def namespaces_annotated(resources: Sequence[Resource], parameters: Parameters, _: datetime.datetime) -> Found:
    """Every application namespace says whether it is in the mesh, or is exempted by name."""
    for resource in resources:
        name = resource.metadata.get("name")
        if resource.kind not in ("Namespace", "NamespacePatch") or name in parameters["exempt"]:
            continue
        # The mesh's own namespaces are exempt from its webhooks by a label.
        if at(resource.metadata, "labels", EXEMPT) == "disabled":
            continue
        said = at(resource.metadata, "annotations", INJECT)
        if said not in ("enabled", "disabled") and not unknown(said):
            remedy = f"Annotate it with {INJECT}: enabled (or disabled), or exempt it by name in the policy's config."
            yield resource, f"{INJECT} is {said!r}", remedy


def no_wildcards(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """Rights are named: a wildcard grows with every kind that the cluster learns."""
    for resource in resources:
        if resource.kind in ("Role", "ClusterRole"):
            for rule in items(resource.properties.get("rules")):
                for key in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
                    named = rule.get(key)
                    if isinstance(named, list) and any("*" in str(item) for item in named):
                        yield resource, f"{key} {named}", "Name what it needs."


def inbound_policy(resources: Sequence[Resource], parameters: Parameters, _: datetime.datetime) -> Found:
    """By default only meshed callers are let in."""
    remedy = f"Set proxy.inboundPolicy to one of {', '.join(parameters['allowed'])}."
    for resource in resources:
        if configures_injector(resource):
            said = at(document(at(resource.properties, "data", "config.json")), "proxy", "inboundPolicy")
            if said is not None and said not in parameters["allowed"]:
                yield resource, f"the default inbound policy is {said}", remedy
        if resource.kind in ("Namespace", "NamespacePatch"):
            said = at(resource.metadata, "annotations", INBOUND)
            if said is not None and said not in parameters["allowed"] and not unknown(said):
                yield resource, f"{INBOUND} is {said}", f"Use one of {', '.join(parameters['allowed'])} there."


def webhook_available(resources: Sequence[Resource], parameters: Parameters, _: datetime.datetime) -> Found:
    """A webhook without which pods are refused does not hang on one pod."""
    for resource, webhook in _failing(resources):
        service = at(webhook, "clientConfig", "service") or {}
        backends = [each for each in resources if each.kind == "Deployment" and _behind(each, service)]
        for backend in backends:
            replicas = at(backend.properties, "spec", "replicas")
            replicas = 1 if replicas is None else replicas
            if not unknown(replicas) and int(replicas) < parameters["minimum"]:
                value = (
                    f"{webhook.get('name')} has failurePolicy Fail, but {backend.title} has {int(replicas)} replicas"
                )
                yield resource, value, f"Set the config key replicas to {parameters['minimum']} or more."


def webhook_spares_itself(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """A webhook that could refuse its own pods could never come back."""
    for resource, webhook in _failing(resources):
        own = at(webhook, "clientConfig", "service", "namespace")
        if unknown(own) or own is None:
            continue
        spared = any(
            each.get("key") == NAMESPACE_NAME and each.get("operator") == "NotIn" and own in (each.get("values") or ())
            for each in items(at(webhook, "namespaceSelector", "matchExpressions"))
        )
        if not spared:
            remedy = f"Exclude it by namespaceSelector ({NAMESPACE_NAME} NotIn {own})."
            yield resource, f"{webhook.get('name')} selects its own namespace {own}", remedy


def _failing(resources: Sequence[Resource]) -> list[tuple[Resource, Mapping[str, Any]]]:
    return [
        (resource, webhook)
        for resource in resources
        if resource.kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
        for webhook in items(resource.properties.get("webhooks"))
        if webhook.get("failurePolicy", "Fail") == "Fail"
    ]


def _behind(deployment: Resource, service: Mapping[str, Any]) -> bool:
    """Whether a Deployment is the one behind a webhook's Service: this project names both after the component."""
    metadata = deployment.metadata
    return metadata.get("name") == service.get("name") and metadata.get("namespace") == service.get("namespace")


RULES: Final = (
    Rule(
        "namespaces-annotated",
        "Every application namespace is annotated or exempted by name.",
        namespaces_annotated,
        {"exempt": []},
    ),
    Rule("no-wildcard-rbac", "No role has a wildcard.", no_wildcards),
    Rule(
        "inbound-policy",
        "The default inbound policy lets only meshed callers in.",
        inbound_policy,
        {"allowed": ["all-authenticated", "cluster-authenticated", "deny"]},
    ),
    Rule(
        "webhook-replicas",
        "A webhook with failurePolicy Fail has more than one pod behind it.",
        webhook_available,
        {"minimum": 2},
        whole=True,
    ),
    Rule(
        "webhook-spares-itself", "A webhook with failurePolicy Fail excludes its own namespace.", webhook_spares_itself
    ),
)
