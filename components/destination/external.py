"""What discovery keeps of an ExternalWorkload, a machine outside the cluster: pure. And which of them a Service's
selector means.

The kind is Linkerd's (`workload.linkerd.io/v1beta1`): as there, only a workload whose condition Ready is True is an
endpoint.
"""

from dataclasses import dataclass

from components.destination.model import Key, Mesh, ServiceFacts
from components.destination.objects import ExternalWorkload
from proxy.api.names import InvalidNameError, parse_dns_name


@dataclass(frozen=True, slots=True)
class ExternalFacts:
    """An ExternalWorkload."""

    key: Key
    selectable: frozenset[tuple[str, str]]
    """Its labels, as a selector sees them."""
    ips: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]
    """Name and number of each TCP port."""
    identity: str
    ready: bool
    labels: tuple[tuple[str, str], ...]
    """What metrics say of it."""
    problem: str = ""
    """Why it is no endpoint, whatever its condition says."""

    def port(self, target: int | str) -> int | None:
        """The number of a Service's target port here; None where it has no such port."""
        return next((number for name, number in self.ports if target in (name, number)), None)


def external_facts(workload: ExternalWorkload, mesh: Mesh) -> ExternalFacts:
    """What counts of an ExternalWorkload."""
    meta, spec = workload.metadata, workload.spec
    identity, account, problem = spec.mesh_tls.server_name, "", ""
    try:
        named = parse_dns_name(identity, mesh.namespace, mesh.trust_domain)
        account = named.service_account
        # Whoever may write here may not speak for another namespace.
        if named.namespace != meta.namespace:
            problem = f"spec.meshTLS.serverName={identity!r} is of another namespace than {meta.namespace!r}"
        elif spec.mesh_tls.identity != named.spiffe_id:
            problem = f"spec.meshTLS.identity={spec.mesh_tls.identity!r} is not its serverName's, {named.spiffe_id!r}"
    except InvalidNameError as error:
        problem = f"spec.meshTLS.serverName: {error}"
    ready = any(each.type == "Ready" and each.status == "True" for each in workload.status.conditions or ())
    found = {"external_workload": meta.name, "namespace": meta.namespace, "serviceaccount": account}
    return ExternalFacts(
        key=(meta.namespace, meta.name),
        selectable=frozenset((meta.labels or {}).items()),
        ips=tuple(each.ip for each in spec.workload_ips or () if each.ip),
        ports=tuple((each.name, each.port) for each in spec.ports or () if each.protocol == "TCP"),
        identity=identity,
        # Without a name to hold it to it would be called in plaintext, so it is not called at all.
        ready=ready and not problem,
        labels=tuple(sorted((name, value) for name, value in found.items() if value)),
        problem=problem,
    )


def selects(service: ServiceFacts, workload: ExternalFacts) -> bool:
    """Whether a Service means this workload; one without a selector means nobody."""
    same_namespace = service.key[0] == workload.key[0]
    return same_namespace and bool(service.selector) and workload.selectable.issuperset(service.selector)
