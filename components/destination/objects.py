"""The parts of Kubernetes objects that discovery reads, as the API writes them: pure. Everything else is dropped while
decoding.
"""

import msgspec


class OwnerReference(msgspec.Struct, frozen=True):
    """Who made an object."""

    kind: str
    name: str
    controller: bool | None = None


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Any object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    deletion_timestamp: str | None = None


class EnvVar(msgspec.Struct, frozen=True):
    """A variable given by value."""

    name: str
    value: str = ""


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """A port that a container declares."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(msgspec.Struct, frozen=True):
    """A container."""

    name: str
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    ports: list[ContainerPort] | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """A Pod's spec."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False


class PodIP(msgspec.Struct, frozen=True):
    """One of a Pod's addresses."""

    ip: str = ""


class Terminated(msgspec.Struct, frozen=True, rename="camel"):
    """How a container ended."""

    exit_code: int = 0
    message: str = ""


class ContainerState(msgspec.Struct, frozen=True):
    """What a container does; what is not the case is absent."""

    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A container as the kubelet reports it."""

    name: str
    state: ContainerState = ContainerState()


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A Pod's status."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] | None = msgspec.field(default=None, name="podIPs")
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A Pod."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    """A port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None


class ServiceSpec(msgspec.Struct, frozen=True):
    """A Service's spec."""

    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ports: list[ServicePort] | None = None
    internal_traffic_policy: str = msgspec.field(default="Cluster", name="internalTrafficPolicy")
    selector: dict[str, str] | None = None


class Service(msgspec.Struct, frozen=True):
    """A Service."""

    metadata: Meta
    spec: ServiceSpec = ServiceSpec()


class Conditions(msgspec.Struct, frozen=True):
    """An endpoint's state; what is absent is taken as the API says: ready, serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(msgspec.Struct, frozen=True):
    """The object behind an endpoint."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class SliceEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """An endpoint."""

    addresses: list[str]
    conditions: Conditions = Conditions()
    target_ref: TargetRef | None = None
    zone: str | None = None
    node_name: str | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """A port of all endpoints of a slice."""

    port: int | None = None
    name: str | None = None
    protocol: str | None = None


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice."""

    metadata: Meta
    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class Namespace(msgspec.Struct, frozen=True):
    """A Namespace."""

    metadata: Meta


class MeshTLS(msgspec.Struct, frozen=True, rename="camel"):
    """Who an ExternalWorkload is: a SPIFFE ID, and the name that peers ask for."""

    identity: str = ""
    server_name: str = ""


class WorkloadIP(msgspec.Struct, frozen=True):
    """An address of an ExternalWorkload."""

    ip: str = ""


class WorkloadPort(msgspec.Struct, frozen=True):
    """A port of an ExternalWorkload."""

    port: int
    name: str = ""
    protocol: str = "TCP"


class WorkloadSpec(msgspec.Struct, frozen=True):
    """An ExternalWorkload's spec."""

    mesh_tls: MeshTLS = msgspec.field(default=MeshTLS(), name="meshTLS")
    workload_ips: list[WorkloadIP] | None = msgspec.field(default=None, name="workloadIPs")
    ports: list[WorkloadPort] | None = None


class WorkloadCondition(msgspec.Struct, frozen=True):
    """A condition of an ExternalWorkload."""

    type: str = ""
    status: str = ""


class WorkloadStatus(msgspec.Struct, frozen=True):
    """An ExternalWorkload's status."""

    conditions: list[WorkloadCondition] | None = None


class ExternalWorkload(msgspec.Struct, frozen=True):
    """A machine outside the cluster that is part of the mesh."""

    metadata: Meta
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()
