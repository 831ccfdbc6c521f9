"""Whether a pod is injected: pure. A pod, its namespace and its owner in; Inject, Skip or Refuse out, each with its
reason.

Skip lets the pod start without a proxy and tells its owner why; Refuse keeps it from starting, because starting it
unmeshed or with a setting that was not understood would be worse. The reasons are Linkerd's where it has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from components.injector.annotations import AnnotationError, apply_annotations
from components.injector.config import InjectorConfig, ProxySettings
from components.injector.patch import Json, Owner, container_ports, inject_pod
from proxy.api import labels

HOST_NETWORK: Final = "host_network_enabled"
SIDECAR_EXISTS: Final = "sidecar_already_exists"
UNSUPPORTED: Final = "unsupported_resource"
NOT_ANNOTATED: Final = "injection_enable_annotation_absent"
DISABLED: Final = "injection_disable_annotation_present"
BAD_INJECT_POD: Final = "invalid_inject_annotation_at_workload"
BAD_INJECT_NAMESPACE: Final = "invalid_inject_annotation_at_ns"
UDP_PORTS: Final = "udp_ports_enabled"
NAMESPACE_EXEMPT: Final = "namespace_exempt"
PROXY_UID: Final = "proxy_uid_in_use"
PROXY_PORT: Final = "proxy_port_in_use"
BAD_ANNOTATION: Final = "invalid_annotation"
NO_NATIVE_SIDECAR: Final = "native_sidecar_unsupported"
CLASSIC_JOB: Final = "job_needs_native_sidecar"
WITHOUT_EFFECT: Final = "annotation_without_effect"
EARLY_CONTAINERS: Final = "init_containers_without_network"

REASONS: Final = (
    HOST_NETWORK, SIDECAR_EXISTS, UNSUPPORTED, NOT_ANNOTATED, DISABLED, BAD_INJECT_POD, BAD_INJECT_NAMESPACE, UDP_PORTS,
    NAMESPACE_EXEMPT, PROXY_UID, PROXY_PORT, BAD_ANNOTATION, NO_NATIVE_SIDECAR, CLASSIC_JOB, WITHOUT_EFFECT,
    EARLY_CONTAINERS,
)  # fmt: skip
SILENT: Final = frozenset({NOT_ANNOTATED, DISABLED, NAMESPACE_EXEMPT})
"""Reasons that are what was asked for, or would give an event for every workload outside the mesh: counted, not told.
"""

SIDECARS: Final = {
    labels.PROXY_CONTAINER: "a linkerd-proxy",
    labels.INIT_CONTAINER: "a linkerd-init",
    labels.VALIDATOR_CONTAINER: "a network validator",
    "istio-proxy": "Istio's sidecar",
    "istio-init": "Istio's init container",
    "consul-dataplane": "Consul's sidecar",
    "kuma-sidecar": "Kuma's sidecar",
}
"""Containers of a mesh: two proxies in one pod would redirect each other's traffic."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the owner should know of an injected pod."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Inject:
    """The pod gets a proxy."""

    settings: ProxySettings
    native: bool
    owner: Owner | None
    notices: tuple[Notice, ...] = field(default=())

    def apply(self, pod: Mapping[str, Any], config: InjectorConfig) -> Json:
        """The pod with its proxy."""
        return inject_pod(pod, config, self.settings, native=self.native, owner=self.owner)


@dataclass(frozen=True, slots=True)
class Skip:
    """The pod starts as it is."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The pod does not start."""

    reason: str
    message: str


Decision = Inject | Skip | Refuse


@dataclass(frozen=True, slots=True)
class Namespace:
    """What of a pod's namespace counts."""

    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def decide(
    pod: Mapping[str, Any],
    namespace: Namespace,
    config: InjectorConfig,
    *,
    native_supported: bool,
    owner: Owner | None = None,
) -> Decision:
    """Decide about one pod (or pod template)."""
    spec = pod.get("spec") or {}
    metadata = pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    asked = _asked_for(namespace, annotations, config)
    if asked is not None:
        return asked
    stop = _unfit(spec)
    if stop is not None:
        return stop
    containers: list[Json] = [*(spec.get("initContainers") or []), *spec["containers"]]
    try:
        overrides = apply_annotations(
            config.proxy,
            namespace.annotations,
            annotations,
            container_ports(containers),
            frozenset(config.allowed_overrides),
        )
    except AnnotationError as error:
        return Refuse(BAD_ANNOTATION, str(error))
    settings = overrides.settings
    conflict = _conflict(spec, containers, settings)
    if conflict is not None:
        return conflict
    native = _native(config, overrides.native_sidecar, supported=native_supported)
    if native and not native_supported:
        return Refuse(
            NO_NATIVE_SIDECAR,
            "a native sidecar was asked for, which needs Kubernetes 1.29 or newer; "
            f'remove {labels.CONFIG_PREFIX}proxy-enable-native-sidecar or set it to "false"',
        )
    if not native and owner is not None and owner.kind in ("job", "cronjob") and not settings.admin_shutdown:
        return Refuse(
            CLASSIC_JOB,
            "a Job with a classic sidecar never completes, since its proxy keeps running; use a native sidecar "
            f'(Kubernetes 1.29 or newer, {labels.CONFIG_PREFIX}proxy-enable-native-sidecar not "false"), or set '
            f"{labels.CONFIG_PREFIX}proxy-admin-shutdown to enabled and POST to the proxy's /shutdown when the work is "
            "done",
        )
    notices = _notices(containers, overrides.without_effect)
    if config.cni_enabled and not native and spec.get("initContainers"):
        notices += (
            Notice(
                EARLY_CONTAINERS,
                "the pod's own init containers have no network: with cni.enabled connections are led to the proxy from "
                "the start, and a classic sidecar starts after them. Use a native sidecar (Kubernetes 1.29 or newer), "
                f"or leave out what they call with {labels.CONFIG_PREFIX}skip-outbound-ports",
            ),
        )
    return Inject(settings, native, owner, notices)


def _asked_for(namespace: Namespace, annotations: Mapping[str, str], config: InjectorConfig) -> Decision | None:
    """None if injection was asked for; else what to do instead."""
    if namespace.name in config.exempt_namespaces or namespace.labels.get(labels.ADMISSION_EXEMPT) == "disabled":
        return Skip(NAMESPACE_EXEMPT, f"namespace {namespace.name} is exempt from injection")
    place, value, code = "pod", annotations.get(labels.INJECT), BAD_INJECT_POD
    if value is None:
        place, value, code = (
            f"namespace {namespace.name}",
            namespace.annotations.get(labels.INJECT),
            BAD_INJECT_NAMESPACE,
        )
    if value is None:
        return Skip(
            NOT_ANNOTATED, f"neither the pod nor namespace {namespace.name} has the annotation {labels.INJECT}: enabled"
        )
    if value == "enabled":
        return None
    if value == "disabled":
        return Skip(DISABLED, f"annotation {labels.INJECT}: disabled on the {place}")
    if value == "ingress":
        return Refuse(
            code, f"annotation {labels.INJECT}: ingress on the {place} is not supported yet; allowed: enabled, disabled"
        )
    return Refuse(code, f"annotation {labels.INJECT}={value!r} on the {place} is not valid; allowed: enabled, disabled")


def _unfit(spec: Mapping[str, Any]) -> Decision | None:
    """Pods that cannot have a proxy, whatever their annotations say."""
    if not spec.get("containers"):
        return Skip(UNSUPPORTED, "the object has no containers, so there is nothing to inject")
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os") or "linux"
    if system != "linux":
        return Skip(UNSUPPORTED, f"pods for {system} nodes are not supported; the proxy needs Linux")
    if spec.get("hostNetwork"):
        return Skip(
            HOST_NETWORK,
            "spec.hostNetwork is true: redirection would take over the node's own traffic. "
            f"Remove hostNetwork, or set {labels.INJECT}: disabled to say that the pod stays outside the mesh",
        )
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if container.get("name") in SIDECARS:
            return Skip(
                SIDECAR_EXISTS, f"the pod already has {SIDECARS[container['name']]} container; it is left as it is"
            )
    return None


def _conflict(spec: Mapping[str, Any], containers: list[Json], settings: ProxySettings) -> Refuse | None:
    """What of the application's own would collide with the proxy."""
    pod_uid = (spec.get("securityContext") or {}).get("runAsUser")
    for container in containers:
        uid = (container.get("securityContext") or {}).get("runAsUser", pod_uid)
        if uid == settings.uid:
            where = "container" if uid != pod_uid else "pod or container"
            return Refuse(
                PROXY_UID,
                f"{where} securityContext.runAsUser of {container.get('name')!r} is {uid}, which is the proxy's own "
                "user: "
                "its traffic would pass by the proxy unseen. Use another user id, or give the proxy another one with "
                f"{labels.CONFIG_PREFIX}proxy-uid",
            )
    own = {settings.inbound_port, settings.outbound_port, settings.admin_port, labels.TAP_PORT}
    for container in containers:
        for port in container.get("ports") or []:
            number = port.get("containerPort")
            if number in own and (port.get("protocol") or "TCP") == "TCP":
                return Refuse(
                    PROXY_PORT,
                    f"container {container.get('name')!r} declares port {number}, which the proxy uses itself "
                    f"({', '.join(str(each) for each in sorted(own))}); move one of them (the proxy's: "
                    f"{labels.CONFIG_PREFIX}inbound-port, outbound-port, admin-port)",
                )
    return None


def _native(config: InjectorConfig, forced: bool | None, *, supported: bool) -> bool:
    if forced is not None:
        return forced
    return supported if config.sidecar == "auto" else config.sidecar == "native"


def _notices(containers: list[Json], without_effect: tuple[str, ...]) -> tuple[Notice, ...]:
    notices = []
    udp = sorted(
        {
            int(port["containerPort"])
            for each in containers
            for port in each.get("ports") or []
            if port.get("protocol") == "UDP"
        }
    )
    if udp:
        ports = ", ".join(map(str, udp))
        notices.append(
            Notice(UDP_PORTS, f"UDP is outside the mesh: traffic to port {ports} is neither encrypted nor measured")
        )
    if without_effect:
        notices.append(
            Notice(WITHOUT_EFFECT, f"annotations that have no effect in this mesh: {', '.join(without_effect)}")
        )
    return tuple(notices)
