"""Pure: what a Linkerd installation is made of, and the plan of its move: settings of a stack that mean the same, what
has no counterpart and what stands in for it, and the steps.

Values are those of Linkerd's Helm chart (ConfigMap `linkerd-config`), kinds those of its API groups. Reading a cluster
does not belong here.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import yaml

from components.forms import FORMS
from components.injector.config import KNOWN_OVERRIDES
from proxy.api import labels

AUTHENTICATED: Final = ("all-authenticated", "cluster-authenticated", "deny")
"""Default policies under which a caller that the other mesh's proxy speaks for is refused."""
INSTEAD: Final[Mapping[str, str]] = {
    "Server": "the nearest is config.linkerd.io/default-inbound-policy on the namespace or workload",
    "ServerAuthorization": "the nearest is config.linkerd.io/default-inbound-policy on the namespace or workload",
    "AuthorizationPolicy": "the nearest is config.linkerd.io/default-inbound-policy on the namespace or workload",
    "MeshTLSAuthentication": "no policy names single identities yet",
    "NetworkAuthentication": "proxy.clusterNetworks with a cluster-* policy is the nearest",
    "HTTPRoute": "a Service's annotations retry.linkerd.io/* and timeout.linkerd.io/* hold for all of its requests",
    "GRPCRoute": "a Service's annotations retry.linkerd.io/* and timeout.linkerd.io/* hold for all of its requests",
    "HTTPLocalRateLimitPolicy": "there is no rate limit yet",
    "EgressNetwork": "traffic to the outside passes without a policy",
    "ServiceProfile": "a Service's annotations retry.linkerd.io/* and timeout.linkerd.io/* hold for all its requests",
}
"""Kinds that are looked for, and what comes nearest to each while the mesh does not read it."""
MOVED: Final[Mapping[str, str]] = {
    "identityTrustDomain": "trustDomain",
    "clusterDomain": "clusterDomain",
    "clusterNetworks": "proxy.clusterNetworks",
    "controllerReplicas": "replicas",
    "identity.issuer.issuanceLifetime": "identity.leafLifetime",
    "prometheusUrl": "prometheus.url",
    "proxy.defaultInboundPolicy": "proxy.inboundPolicy",
    "proxy.logFormat": "proxy.logFormat",
    "proxy.logLevel": "proxy.logLevel",
    "proxy.nativeSidecar": "proxy.sidecar",
    "proxy.opaquePorts": "proxy.opaquePorts",
    "proxy.resources.cpu.request": "proxy.cpuRequest",
    "proxy.resources.memory.limit": "proxy.memoryLimit",
    "proxy.resources.memory.request": "proxy.memoryRequest",
    "proxyInit.ignoreInboundPorts": "proxy.skipInboundPorts",
    "proxyInit.ignoreOutboundPorts": "proxy.skipOutboundPorts",
}
"""Value of Linkerd's chart -> config key."""
LEFT: Final[Mapping[str, str]] = {
    "cniEnabled": "there is no CNI plugin; the init container sets the rules",
    "proxy.accessLog": "annotate namespaces or workloads with config.linkerd.io/access-log",
    "proxy.resources.cpu.limit": "annotate namespaces or workloads with config.linkerd.io/proxy-cpu-limit",
    "proxyInit.skipSubnets": "annotate namespaces or workloads with config.linkerd.io/skip-subnets",
    "identity.externalCA": "give trust.issuerSecret and trust.bundle for a Secret that somebody else keeps",
}
"""Values that mean something and have no config key, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The public half of an anchor or issuer."""

    subject: str
    fingerprint: str
    """SHA-256, hexadecimal."""
    not_after: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace with something of Linkerd in it."""

    name: str
    inject: str
    """Its annotation linkerd.io/inject, or empty."""
    annotations: Mapping[str, str]
    """Its config.linkerd.io/ annotations, without the prefix."""
    pods: int
    """Running pods with a proxy of this Linkerd."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What was found."""

    namespace: str
    version: str
    values: Mapping[str, Any]
    anchors: tuple[Certificate, ...]
    issuer: Certificate | None
    issuer_kept_by: str
    """`cert-manager` where a Certificate keeps the issuer's Secret, else empty."""
    namespaces: tuple[Namespace, ...]
    objects: tuple[tuple[str, str, str], ...]
    """(kind, namespace, name) of routes, policies and profiles."""
    extensions: tuple[str, ...]
    """Names of installed extensions, like viz."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that does not move by itself."""

    what: str
    instead: str


@dataclass(slots=True)
class Plan:
    """The plan of a move."""

    stack: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Config keys whose values differ from their defaults."""
    unmoved: list[Remark] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)
    """What fails, or is less safe, while both meshes run."""
    steps: list[str] = field(default_factory=list)

    @property
    def stack_file(self) -> str:
        """The text of `Pulumi.<stack>.yaml`."""
        config = {f"tulle:{key}": value for key, value in sorted(self.settings.items())}
        head = "# What `tulle adopt-linkerd` read from the Linkerd that was there.\n"
        return head + yaml.safe_dump({"config": config}, sort_keys=False, width=120)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return asdict(self)


def plan(found: Installation, stack: str, defaults: Mapping[str, Any]) -> Plan:
    """The plan; `defaults` are the config keys' own (`Pulumi.yaml`)."""
    made = Plan(stack)
    for name, key in MOVED.items():
        given = _at(found.values, name)
        if given in (None, ""):
            continue
        value = _translated(key, given)
        try:
            FORMS[key].parse(value if isinstance(value, str) else str(value).lower())
        except ValueError:
            made.unmoved.append(Remark(f"{name}: {given}", f"{key} must be {FORMS[key].allowed}"))
            continue
        if value != defaults.get(key):
            made.settings[key] = value
    for name, to_do in LEFT.items():
        if given := _at(found.values, name):
            made.unmoved.append(Remark(f"{name}: {given}", to_do))
    adopted = [each.name for each in found.namespaces if each.inject == "enabled" and each.name != "kube-system"]
    if adopted:
        made.settings["adoptedNamespaces"] = adopted
    for each in found.namespaces:
        _look_at_namespace(made, each)
    for kind, namespace, name in found.objects:
        made.unmoved.append(Remark(f"{kind} {namespace}/{name}", INSTEAD.get(kind, "it is not read")))
    made.unmoved += [Remark(f"extension {name}", "it stays with Linkerd") for name in found.extensions]
    policy = str(_at(found.values, "proxy.defaultInboundPolicy") or "")
    if policy in AUTHENTICATED:
        made.warnings.append(
            Remark(
                f"proxy.defaultInboundPolicy is {policy}",
                "meshed pods of the two meshes call each other without TLS, so restart all namespaces together, or "
                "allow all-unauthenticated until all are moved",
            )
        )
    made.steps = _steps(found, stack, adopted)
    return made


def _look_at_namespace(made: Plan, each: Namespace) -> None:
    if each.inject == "ingress":
        made.unmoved.append(Remark(f"namespace {each.name}: linkerd.io/inject: ingress", "there is no ingress mode"))
    if each.pods and each.inject != "enabled":
        made.unmoved.append(
            Remark(
                f"namespace {each.name}: {each.pods} meshed pods, but the namespace is not annotated",
                "annotate the namespace and run this again; else Linkerd's injector takes its pods until it is removed",
            )
        )
    for key in sorted(set(each.annotations) - set(KNOWN_OVERRIDES) - {labels.ADMISSION_EXEMPT.rpartition("/")[2]}):
        made.unmoved.append(Remark(f"namespace {each.name}: config.linkerd.io/{key}", "the annotation is not read"))
    if each.annotations.get("default-inbound-policy") in AUTHENTICATED:
        made.warnings.append(
            Remark(
                f"namespace {each.name}: default-inbound-policy is {each.annotations['default-inbound-policy']}",
                "callers in the other mesh are refused: move it together with all that call it",
            )
        )


def _steps(found: Installation, stack: str, adopted: list[str]) -> list[str]:
    restarts = [f"kubectl rollout restart deployment,statefulset,daemonset -n {name}" for name in adopted]
    return [
        f"write Pulumi.{stack}.yaml (--yes does it)",
        f"have Linkerd's injector leave namespaces labelled {labels.MESHED_NAMESPACE}: enabled alone (--yes does it)",
        f"tulle up --stack {stack} --context ...: the control plane beside Linkerd's, and the label on each namespace",
        *restarts,
        "tulle check; tulle stat deploy -A",
        f"when no pod has a proxy of {found.namespace} any more: linkerd uninstall | kubectl delete -f -",
    ]


def _translated(key: str, given: Any) -> Any:
    if key == "identity.leafLifetime":
        return re.sub(r"(?<=[hm])0[ms](0s)?$", "", str(given))
    if key == "proxy.logLevel":
        word = next((each[1] for each in re.finditer(r"linkerd=(\w+)", str(given))), str(given).partition(",")[0])
        return {"trace": "debug", "off": "error"}.get(word, word)
    if key == "proxy.sidecar":
        return "native" if given is True else "auto"
    if key == "replicas":
        return given
    return str(given)


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
