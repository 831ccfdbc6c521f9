"""What discovery keeps of each object: pure. Small frozen facts, made once when an object arrives.

Comparing two facts tells whether anything changed that a proxy could see, so that a Pod's heartbeat wakes nobody.
"""

from dataclasses import dataclass
from typing import Final

from components.destination.annotations import AnnotationError
from components.destination.balancing import DEFAULT, Balancing
from components.destination.balancing import parse as parse_balancing
from components.destination.objects import Container, EndpointSlice, Meta, Namespace, Pod, PodStatus, Service
from components.destination.ports import EMPTY, PortsError, PortSet, parse_named_ports, parse_ports
from components.destination.terms import NONE, Terms
from components.destination.terms import parse as parse_terms
from proxy.api import labels
from proxy.api.names import InvalidNameError, workload_identity

Key = tuple[str, str]
"""Namespace and name."""

OPAQUE_PORTS: Final = labels.CONFIG_PREFIX + "opaque-ports"
SERVICE_NAME: Final = "kubernetes.io/service-name"
TEMPLATE_HASH: Final = "pod-template-hash"
OPAQUE_ENV: Final = "TULLE_PROXY_INBOUND_OPAQUE_PORTS"
ADMIN_NAME: Final = "linkerd-admin"
SKIP_FLAG: Final = "--inbound-skip-ports"
OWNERS: Final = {
    "Deployment": "deployment",
    "ReplicaSet": "replicaset",
    "StatefulSet": "statefulset",
    "DaemonSet": "daemonset",
    "Job": "job",
    "CronJob": "cronjob",
    "ReplicationController": "replicationcontroller",
}
"""Kinds of owner that become a metric label; others (of operators) would make label names nobody knows."""
FINISHED: Final = frozenset({"Succeeded", "Failed"})
"""Phases of Pods that still carry an address which may already be another Pod's."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What is the same for all: the names that identities are made of."""

    namespace: str
    trust_domain: str


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A Pod."""

    key: Key
    uid: str
    ips: tuple[str, ...]
    alive: bool
    leaving: bool
    host_network: bool
    identity: str
    """Empty where the Pod is outside the mesh."""
    skipped: PortSet
    """Ports whose traffic passes by the Pod's proxy, and so cannot be asked for its identity."""
    opaque: PortSet | None
    """None where the Pod says nothing: its Namespace's then, or the mesh's."""
    labels: tuple[tuple[str, str], ...]
    problem: str = ""
    """What of its annotations could not be read."""
    refusal: str = ""
    """What its network validator said when it kept the Pod from starting; empty while it has not."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A Service."""

    key: Key
    ips: tuple[str, ...]
    ports: tuple[tuple[int, str], ...]
    """Number and name of each TCP port."""
    opaque: PortSet | None
    local: bool = False
    """Whether callers may reach endpoints of their own node only (internalTrafficPolicy)."""
    balancing: Balancing = DEFAULT
    terms: Terms = NONE
    problem: str = ""
    selector: tuple[tuple[str, str], ...] = ()
    targets: tuple[tuple[str, int | str], ...] = ()
    """For each port's name, the number or name of the port behind it."""


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """An address of a slice."""

    address: str
    ready: bool
    serving: bool
    terminating: bool
    pod: Key | None
    pod_uid: str
    zone: str
    node: str


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """An EndpointSlice."""

    key: Key
    service: Key
    family: int
    """4 or 6; 0 for names, which nobody can be balanced over."""
    ports: tuple[tuple[str, int], ...]
    endpoints: tuple[EndpointFacts, ...]


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """A Namespace."""

    name: str
    opaque: PortSet | None
    problem: str = ""


def pod_facts(pod: Pod, mesh: Mesh) -> PodFacts:
    """What counts of a Pod."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    containers = [*(spec.init_containers or ()), *(spec.containers or ())]
    by_name = {container.name: container for container in containers}
    proxy = by_name.get(labels.PROXY_CONTAINER)
    # Both have the same arguments.
    redirect = by_name.get(labels.INIT_CONTAINER) or by_name.get(labels.VALIDATOR_CONTAINER)
    identity, problem = "", ""
    # The label alone could be copied by anybody, the container alone could be another mesh's.
    of_this_mesh = (meta.labels or {}).get(labels.CONTROL_PLANE_NAMESPACE) == mesh.namespace
    if of_this_mesh and proxy is not None and not spec.host_network:
        try:
            account = spec.service_account_name or "default"
            identity = workload_identity(account, meta.namespace, mesh.namespace, mesh.trust_domain).dns_name
        except InvalidNameError as error:
            problem = str(error)
    named = {port.name: port.container_port for each in containers for port in each.ports or () if port.name}
    opaque, opaque_problem = _opaque(meta, named)
    if identity and proxy is not None:
        # What the proxy was really started with wins over annotations that may have changed since.
        own = next((variable.value for variable in proxy.env or () if variable.name == OPAQUE_ENV), None)
        opaque = _lenient(own, opaque)
    ips = tuple(each.ip for each in status.pod_ips or () if each.ip) or ((status.pod_ip,) if status.pod_ip else ())
    return PodFacts(
        key=(meta.namespace, meta.name),
        uid=meta.uid,
        ips=ips,
        alive=status.phase not in FINISHED,
        leaving=meta.deletion_timestamp is not None,
        host_network=spec.host_network,
        identity=identity,
        skipped=_skipped(redirect, proxy) if identity else EMPTY,
        opaque=opaque,
        labels=_pod_labels(meta, spec.service_account_name or "default"),
        problem=problem or opaque_problem,
        refusal=_refusal(status) if identity else "",
    )


def service_facts(service: Service) -> ServiceFacts:
    """What counts of a Service."""
    meta, spec = service.metadata, service.spec
    ips = spec.cluster_ips or [spec.cluster_ip]
    tcp = [port for port in spec.ports or () if port.protocol == "TCP"]
    opaque, problem = _opaque(meta, {port.name: port.port for port in tcp if port.name})
    balancing, terms = DEFAULT, NONE
    try:
        balancing = parse_balancing(meta.annotations or {})
    except AnnotationError as error:
        problem = problem or f"the balancer's annotations are not used: {error}"
    try:
        terms = parse_terms(meta.annotations or {})
    except AnnotationError as error:
        problem = problem or f"annotations for retries and time limits are not used: {error}"
    return ServiceFacts(
        key=(meta.namespace, meta.name),
        ips=tuple(ip for ip in ips if ip and ip != "None"),
        ports=tuple((port.port, port.name) for port in tcp),
        opaque=opaque,
        local=spec.internal_traffic_policy == "Local",
        balancing=balancing,
        terms=terms,
        problem=problem,
        selector=tuple(sorted((spec.selector or {}).items())),
        targets=tuple((port.name, port.target_port or port.port) for port in tcp),
    )


def slice_facts(given: EndpointSlice) -> SliceFacts:
    """What counts of an EndpointSlice."""
    meta = given.metadata
    ports = [port for port in given.ports or () if (port.protocol or "TCP") == "TCP" and port.port]
    endpoints = []
    for each in given.endpoints or ():
        if not each.addresses:
            continue
        ready, reference = each.conditions.ready is not False, each.target_ref
        pod = None
        if reference is not None and reference.kind == "Pod":
            pod = (reference.namespace or meta.namespace, reference.name)
        endpoints.append(
            EndpointFacts(
                address=each.addresses[0],
                ready=ready,
                serving=ready if each.conditions.serving is None else each.conditions.serving,
                terminating=bool(each.conditions.terminating),
                pod=pod,
                pod_uid=reference.uid if reference is not None and pod is not None else "",
                zone=each.zone or "",
                node=each.node_name or "",
            )
        )
    return SliceFacts(
        key=(meta.namespace, meta.name),
        service=(meta.namespace, (meta.labels or {}).get(SERVICE_NAME, "")),
        family={"IPv4": 4, "IPv6": 6}.get(given.address_type, 0),
        ports=tuple((port.name or "", port.port or 0) for port in ports),
        endpoints=tuple(endpoints),
    )


def namespace_facts(namespace: Namespace) -> NamespaceFacts:
    """What counts of a Namespace."""
    opaque, problem = _opaque(namespace.metadata, {})
    return NamespaceFacts(namespace.metadata.name, opaque, problem)


def _opaque(meta: Meta, named: dict[str, int]) -> tuple[PortSet | None, str]:
    text = (meta.annotations or {}).get(OPAQUE_PORTS)
    if text is None:
        return None, ""
    try:
        return parse_named_ports(text, named), ""
    except PortsError as error:
        return None, f"annotation {OPAQUE_PORTS}={text!r} is not used: {error}"


def _lenient(text: str | None, otherwise: PortSet | None) -> PortSet | None:
    """A value that was checked when it was written; should it not be readable after all, the next best is used."""
    if text is None:
        return otherwise
    try:
        return parse_ports(text)
    except PortsError:
        return otherwise


def _skipped(redirect: Container | None, proxy: Container | None) -> PortSet:
    """The ports that the Pod's own redirection leaves alone, without the proxy's admin and tap ports: these speak TLS
    themselves.
    """
    arguments = list(redirect.args or ()) if redirect is not None else []
    if SKIP_FLAG not in arguments[:-1]:
        return EMPTY
    found = _lenient(arguments[arguments.index(SKIP_FLAG) + 1], EMPTY) or EMPTY
    admin = next((port.container_port for port in (proxy and proxy.ports) or () if port.name == ADMIN_NAME), 0)
    own = {(port, port) for port in (labels.TAP_PORT, admin or labels.ADMIN_PORT)}
    return PortSet(tuple(each for each in found.ranges if each not in own))


def _refusal(status: PodStatus) -> str:
    """The validator's own words: the kubelet keeps them in the container's state alone, where few look."""
    for each in status.init_container_statuses or ():
        ended = each.state.terminated
        if each.name == labels.VALIDATOR_CONTAINER and ended and ended.exit_code == labels.EXIT_NOT_REDIRECTED:
            return ended.message.strip() or "the network validator has found no redirection"
    return ""


def _pod_labels(meta: Meta, account: str) -> tuple[tuple[str, str], ...]:
    found = {"namespace": meta.namespace, "pod": meta.name, "serviceaccount": account}
    template = (meta.labels or {}).get(TEMPLATE_HASH, "")
    if template:
        found["pod_template_hash"] = template
    owner = next((each for each in meta.owner_references or () if each.controller), None)
    if owner is not None and owner.kind in OWNERS:
        if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
            # A ReplicaSet of a Deployment is called after it and the template's hash.
            found["deployment"] = owner.name.removesuffix(f"-{template}")
        else:
            found[OWNERS[owner.kind]] = owner.name
    return tuple(sorted(found.items()))
