"""The joined state of the cluster, and which watched addresses a change touches: pure. No clock, no stream, no
Kubernetes client.

`apply_*` take an object's old and new facts and return the watched addresses whose view may now be another; `view`
computes a view.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from components.destination.balancing import DEFAULT, Balancing
from components.destination.external import ExternalFacts, selects
from components.destination.model import Key, NamespaceFacts, PodFacts, ServiceFacts, SliceFacts
from components.destination.ports import PortSet
from components.destination.terms import NONE, Terms

_F = TypeVar("_F")
Address = tuple[str, int]
"""An IP in its normal spelling, and a port."""


class Kind(Enum):
    """What an address turned out to be."""

    SERVICE = "service"
    POD = "pod"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint, as a proxy is told of it."""

    address: str
    identity: str = ""
    opaque: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    node: str = ""
    """Where it runs; said to nobody, but a view may be for one node."""


@dataclass(frozen=True, slots=True)
class View:
    """A target, as a proxy is told of it."""

    kind: Kind
    opaque: bool = False
    authority: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    endpoints: dict[str, EndpointView] = field(default_factory=dict)
    local: bool = False
    """Whether each node sees its own endpoints only."""
    balancing: Balancing = DEFAULT
    terms: Terms = NONE

    def on(self, node: str) -> "View":
        """The view that callers on a node have."""
        if not self.local:
            return self
        return replace(self, endpoints={key: each for key, each in self.endpoints.items() if each.node == node})


EXTERNAL: Final = View(Kind.EXTERNAL)


class AddressError(ValueError):
    """Not an `ip:port`."""


def parse_address(text: str) -> Address:
    """Read `10.0.0.1:80` or `[fd00::1]:80`; raises AddressError. An IPv4 address mapped into IPv6 is IPv4."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise AddressError(f"{text[:100]!r} is not an ip:port") from None
    if not colon or bracketed != (ip.version == 6) or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise AddressError(f"{text[:100]!r} is not an ip:port")
    if not 1 <= int(port) <= 65535:
        raise AddressError(f"{text[:100]!r}: port {port} is not between 1 and 65535")
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip), int(port)


def format_address(ip: str, port: int) -> str:
    """Write an address as `parse_address` reads it."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class Index:
    """Services, slices, Pods, Namespaces and ExternalWorkloads, joined."""

    def __init__(self, cluster_domain: str, default_opaque: PortSet) -> None:
        self._cluster_domain = cluster_domain
        self._default_opaque = default_opaque
        self._watched: dict[str, set[int]] = {}
        self._pods: dict[Key, PodFacts] = {}
        self._pods_by_ip: dict[str, dict[Key, PodFacts]] = defaultdict(dict)
        self._services: dict[Key, ServiceFacts] = {}
        self._services_by_ip: dict[str, Key] = {}
        self._slices: dict[Key, dict[Key, SliceFacts]] = defaultdict(dict)
        self._slices_by_pod: dict[Key, set[Key]] = defaultdict(set)
        self._service_of_slice: dict[Key, Key] = {}
        self._namespaces: dict[str, NamespaceFacts] = {}
        self._externals: dict[str, dict[Key, ExternalFacts]] = defaultdict(dict)
        """By namespace: few, and looked through for each Service that is watched."""

    def __repr__(self) -> str:
        watched = sum(map(len, self._watched.values()))
        slices = len(self._service_of_slice)
        return f"Index({len(self._services)} services, {slices} slices, {len(self._pods)} pods, {watched} watched)"

    def watch(self, address: Address) -> None:
        """Have changes of this address reported."""
        self._watched.setdefault(address[0], set()).add(address[1])

    def unwatch(self, address: Address) -> None:
        """No longer report it."""
        ports = self._watched.get(address[0])
        if ports is not None:
            ports.discard(address[1])
            if not ports:
                del self._watched[address[0]]

    def apply_pod(self, old: PodFacts | None, new: PodFacts | None) -> set[Address]:
        """A Pod came, changed or went."""
        key = _some(old, new).key
        ips = set(_ips(old)) | set(_ips(new))
        if old is not None:
            self._pods.pop(key, None)
            for ip in old.ips:
                self._pods_by_ip[ip].pop(key, None)
                if not self._pods_by_ip[ip]:
                    del self._pods_by_ip[ip]
        if new is not None:
            self._pods[key] = new
            for ip in new.ips:
                self._pods_by_ip[ip][key] = new
        services = {self._service_of_slice[each] for each in self._slices_by_pod.get(key, ())}
        return {*self._watched_at(ips), *self._watched_services(services)}

    def apply_service(self, old: ServiceFacts | None, new: ServiceFacts | None) -> set[Address]:
        """A Service came, changed or went."""
        key = _some(old, new).key
        if old is not None:
            self._services.pop(key, None)
            for ip in old.ips:
                # The address may already be another Service's, whose notification came first.
                if self._services_by_ip.get(ip) == key:
                    del self._services_by_ip[ip]
                    # Or it was another's before, which has not been seen to go.
                    for other, service in self._services.items():
                        if ip in service.ips:
                            self._services_by_ip[ip] = other
        if new is not None:
            self._services[key] = new
            for ip in new.ips:
                self._services_by_ip[ip] = key
        return set(self._watched_at({*(old.ips if old else ()), *(new.ips if new else ())}))

    def apply_slice(self, old: SliceFacts | None, new: SliceFacts | None) -> set[Address]:
        """An EndpointSlice came, changed or went."""
        services = set()
        if old is not None:
            services.add(old.service)
            self._slices[old.service].pop(old.key, None)
            if not self._slices[old.service]:
                del self._slices[old.service]
            self._service_of_slice.pop(old.key, None)
            for endpoint in old.endpoints:
                if endpoint.pod is not None and endpoint.pod in self._slices_by_pod:
                    self._slices_by_pod[endpoint.pod].discard(old.key)
                    if not self._slices_by_pod[endpoint.pod]:
                        del self._slices_by_pod[endpoint.pod]
        if new is not None:
            services.add(new.service)
            self._slices[new.service][new.key] = new
            self._service_of_slice[new.key] = new.service
            for endpoint in new.endpoints:
                if endpoint.pod is not None:
                    self._slices_by_pod[endpoint.pod].add(new.key)
        return set(self._watched_services(services))

    def apply_namespace(self, old: NamespaceFacts | None, new: NamespaceFacts | None) -> set[Address]:
        """A Namespace came, changed or went."""
        name = _some(old, new).name
        if new is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = new
        # Rare enough to look at every watched address.
        return {
            (ip, port)
            for ip, ports in self._watched.items()
            if self._namespace_of(ip) == name or ip in self._services_by_ip
            for port in ports
        }

    def apply_external(self, old: ExternalFacts | None, new: ExternalFacts | None) -> set[Address]:
        """An ExternalWorkload came, changed or went."""
        key = _some(old, new).key
        there = self._externals[key[0]]
        if new is not None:
            there[key] = new
        else:
            there.pop(key, None)
            if not there:
                del self._externals[key[0]]
        sides = [each for each in (old, new) if each is not None]
        watched = {self._services_by_ip[ip] for ip in self._watched if ip in self._services_by_ip}
        return set(
            self._watched_services(
                service for service in watched if any(selects(self._services[service], side) for side in sides)
            )
        )

    def view(self, address: Address) -> View:
        """What a proxy is told of an address now."""
        ip, port = address
        service_key = self._services_by_ip.get(ip)
        if service_key is not None:
            service = self._services[service_key]
            name = next((name for number, name in service.ports if number == port), None)
            return self._external(port) if name is None else self._service_view(service, ip, port, name)
        pod = self._pod_at(ip)
        if pod is None:
            return self._external(port)
        endpoint = self._endpoint(format_address(ip, port), pod, port, "")
        labels = (("namespace", pod.key[0]),)
        return View(Kind.POD, endpoint.opaque, "", labels, {endpoint.address: endpoint})

    def _external(self, port: int) -> View:
        """A host that is not the cluster's. Its server may speak first all the same: a database, a mail exchange."""
        return View(Kind.EXTERNAL, True) if port in self._default_opaque else EXTERNAL

    def _service_view(self, service: ServiceFacts, ip: str, port: int, port_name: str) -> View:
        namespace, name = service.key
        opaque = service.opaque if service.opaque is not None else self._namespace_opaque(namespace)
        return View(
            Kind.SERVICE,
            port in opaque,
            f"{name}.{namespace}.svc.{self._cluster_domain}:{port}",
            (("namespace", namespace), ("service", name)),
            self._endpoints(service, port_name, 6 if ":" in ip else 4),
            service.local,
            service.balancing,
            service.terms,
        )

    def _endpoints(self, service: ServiceFacts, port_name: str, family: int) -> dict[str, EndpointView]:
        """Ready endpoints, or, where there is none, those still serving while they terminate (KEP-1669)."""
        ready = {each.address: each for each in self._machines(service, port_name, family)}
        last_resort: dict[str, EndpointView] = {}
        for each in self._slices.get(service.key, {}).values():
            port = next((number for name, number in each.ports if name == port_name), None)
            if each.family != family or port is None:
                continue
            for endpoint in each.endpoints:
                if endpoint.ready:
                    group = ready
                elif endpoint.serving and endpoint.terminating:
                    group = last_resort
                else:
                    continue
                pod = None
                if endpoint.pod is not None:
                    pod = self._pods.get(endpoint.pod)
                    # Not yet joined, or joined to an earlier Pod of this name: publishing it now could mean plaintext
                    # to a meshed Pod. It follows as soon as the Pod is known.
                    if pod is None or (endpoint.pod_uid and pod.uid != endpoint.pod_uid):
                        continue
                address = format_address(endpoint.address, port)
                group[address] = replace(self._endpoint(address, pod, port, endpoint.zone), node=endpoint.node)
        return ready or last_resort

    def _machines(self, service: ServiceFacts, port_name: str, family: int) -> Iterator[EndpointView]:
        """The endpoints of a Service that are outside the cluster."""
        target = dict(service.targets).get(port_name)
        for each in self._externals.get(service.key[0], {}).values():
            port = each.port(target) if target is not None else None
            if port is None or not each.ready or not selects(service, each):
                continue
            opaque = port in self._namespace_opaque(service.key[0])
            for ip in each.ips:
                if (6 if ":" in ip else 4) == family:
                    yield EndpointView(format_address(ip, port), each.identity, opaque, each.labels)

    def _endpoint(self, address: str, pod: PodFacts | None, port: int, zone: str) -> EndpointView:
        labels = pod.labels if pod is not None else ()
        if zone:
            labels = (*labels, ("zone", zone))
        if pod is None:
            return EndpointView(address, labels=labels)
        opaque = pod.opaque if pod.opaque is not None else self._namespace_opaque(pod.key[0])
        return EndpointView(address, "" if port in pod.skipped else pod.identity, port in opaque, labels)

    def _pod_at(self, ip: str) -> PodFacts | None:
        """The Pod that owns an address: not a finished one that still carries it, nor one of those on the node's own
        network.
        """
        found = [pod for pod in self._pods_by_ip.get(ip, {}).values() if pod.alive and not pod.host_network]
        staying = [pod for pod in found if not pod.leaving]
        # The one heard of last, should the API for a moment show two.
        candidates = staying or found
        return candidates[-1] if candidates else None

    def _namespace_opaque(self, namespace: str) -> PortSet:
        facts = self._namespaces.get(namespace)
        return facts.opaque if facts is not None and facts.opaque is not None else self._default_opaque

    def _namespace_of(self, ip: str) -> str | None:
        pod = self._pod_at(ip)
        return None if pod is None else pod.key[0]

    def _watched_at(self, ips: Iterable[str]) -> Iterator[Address]:
        for ip in ips:
            for port in self._watched.get(ip, ()):
                yield ip, port

    def _watched_services(self, keys: Iterable[Key]) -> Iterator[Address]:
        for key in keys:
            service = self._services.get(key)
            if service is not None:
                yield from self._watched_at(service.ips)


def _ips(pod: PodFacts | None) -> tuple[str, ...]:
    return pod.ips if pod is not None else ()


def _some(old: _F | None, new: _F | None) -> _F:
    given = new if new is not None else old
    assert given is not None  # a change has at least one side
    return given
