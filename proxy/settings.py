"""The proxy's settings: pure. One table, read once at start; says nothing of what a setting makes happen.

A row is a field of `Settings`: its variable is `TULLE_PROXY_` and the field's name in capitals, then come the parser,
the default as it would be written in the environment, and a sentence. A bad value is a `SettingError`, which names
the variable, the value and the way out; the process then exits with EXIT_BAD_SETTING.
"""

# ruff: noqa: RUF009 (a row of the table is a call: that it runs once, when the class is made, is the point)
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple, TypeVar, cast

from proxy.api import labels, names
from proxy.numbers import count, optional_count, optional_share

PREFIX: Final = "TULLE_PROXY_"
EXIT_BAD_SETTING: Final = 64
"""`EX_USAGE` of sysexits.h, Linkerd's code for a bad configuration."""
MAX_DURATION: Final = 365 * 86400.0
"""A year in seconds: longer waits are typing errors, and would overflow timers."""

T = TypeVar("T")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")


class SettingError(ValueError):
    """A setting that cannot be used: which variable, what it holds, what to write instead."""

    def __init__(self, variable: str, value: str | None, remedy: str) -> None:
        self.variable = variable
        self.value = value
        self.remedy = remedy
        super().__init__(f"{variable} is not set: {remedy}" if value is None else f"{variable}={value!r}: {remedy}")


class Address(NamedTuple):
    """A host (name or IP, without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether a connection to it stays inside the pod, and therefore needs no TLS."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ports as inclusive, sorted, disjoint ranges: `1-65535` costs one pair, not 65,535 integers."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(low <= port <= high for low, high in self.ranges)

    def __str__(self) -> str:
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)


class Probe(NamedTuple):
    """A kubelet probe: a plaintext GET of exactly this port and path is exempt from authorisation."""

    port: int
    path: str


def text(value: str) -> str:
    """Any non-empty text."""
    if not value:
        raise ValueError("must not be empty")
    return value


def optional_text(value: str) -> str:
    """Any text, empty where the thing does not exist."""
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of one word out of a closed list."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"write one of {', '.join(choices)}")
        return value

    return parse


def boolean(value: str) -> bool:
    """`true` or `false`."""
    if value not in ("true", "false"):
        raise ValueError("write true or false")
    return value == "true"


def duration(value: str) -> float:
    """Seconds out of `<integer><unit>`; the unit may be left out of 0 alone."""
    if value == "0":
        return 0.0
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError("write an integer and a unit of ms, s, m, h or d, such as 300ms or 10s")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > MAX_DURATION:
        raise ValueError("write at most 365d")
    return seconds


def port(value: str) -> int:
    """A TCP port."""
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise ValueError(f"{value!r} is not a port between 1 and 65535")
    return int(value)


def port_set(value: str) -> PortSet:
    """Ports and inclusive ranges, such as `25,8000-8080`; empty for none."""
    ranges = []
    for item in filter(None, (part.strip() for part in value.split(","))):
        low, dash, high = item.partition("-")
        pair = (port(low), port(high) if dash else port(low))
        if pair[0] > pair[1]:
            raise ValueError(f"{item!r} is an empty range: write the smaller port first")
        ranges.append(pair)
    merged: list[tuple[int, int]] = []
    for low_port, high_port in sorted(ranges):
        if merged and low_port <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high_port))
        else:
            merged.append((low_port, high_port))
    return PortSet(tuple(merged))


def address(value: str) -> Address:
    """`host:port` or `[IPv6]:port`."""
    host, colon, port_text = value.rpartition(":")
    if not colon or not host:
        raise ValueError("write host:port, an IPv6 host in brackets")
    if host.startswith("[") and host.endswith("]"):
        return Address(str(IPv6Address(host[1:-1])), port(port_text))
    if ":" in host or any(c.isspace() or c == "/" for c in host):
        raise ValueError("write host:port, an IPv6 host in brackets")
    return Address(host, port(port_text))


def listen_addresses(value: str) -> tuple[Address, ...]:
    """One or two `ip:port` separated by a comma; `auto` (no address here) leaves the choice to POD_IPS."""
    if value == "auto":
        return ()
    found = tuple(address(item.strip()) for item in value.split(","))
    for item in found:
        ip_address(item.host)
    return found


def ip_list(value: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """IP addresses separated by commas, in the order given."""
    return tuple(ip_address(item.strip()) for item in value.split(",") if item.strip())


def network_list(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """CIDRs separated by commas."""
    return tuple(ip_network(item.strip()) for item in value.split(",") if item.strip())


def text_list(value: str) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def probes(value: str) -> tuple[Probe, ...]:
    """A JSON list of objects with `port` and `path`."""
    remedy = 'write JSON such as [{"port": 8080, "path": "/healthz"}]'
    try:
        parsed = json.loads(value)
        found = tuple(Probe(port(str(item["port"])), str(item["path"])) for item in parsed)
    except (json.JSONDecodeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(remedy) from error
    if any(not probe.path.startswith("/") for probe in found):
        raise ValueError("every path must start with /")
    return found


def setting(parse: Callable[[str], T], default: str | None, sentence: str) -> T:
    """One row of the table; without a default the variable must be set."""
    return cast(T, field(metadata={"parse": parse, "default": default, "sentence": sentence}))


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False, match_args=False)
class Settings:
    """Everything the proxy can be told, typed; durations are seconds."""

    def __init__(self, **values: Any) -> None:
        """Takes every row by name; raises TypeError for a name that is none. Written out because the methods that
        `dataclass` would generate for so many rows cost each sidecar a megabyte."""
        for row in fields(self):
            value = values.pop(row.name) if row.name in values else _default(row)
            object.__setattr__(self, row.name, value)
        if values:
            raise TypeError(f"no such settings: {', '.join(sorted(values))}")

    log: str = setting(one_of("error", "warn", "info", "debug"), "info", "The least severe level that is logged.")
    log_format: str = setting(one_of("plain", "json"), "plain", "How a log line is written.")

    cores: int = setting(
        optional_count, "", "How many processes carry traffic, 1 to the CPUs allowed; 1 where nothing is written."
    )
    cores_min: int = setting(optional_count, "", "How many at least, if there are so many CPUs.")
    cores_max: int = setting(optional_count, "", "How many at most, where CORES does not say: as many as CPUs allow.")
    cores_max_ratio: float = setting(
        optional_share, "", "The same as a share of the CPUs, where neither CORES nor CORES_MAX says."
    )

    access_log: str = setting(
        one_of("", "apache", "json"), "", "How requests of others are logged on stderr; empty for not at all."
    )

    inbound_listen_addr: tuple[Address, ...] = setting(
        listen_addresses, "auto", "Where redirected inbound connections arrive; auto is every address, port 4143."
    )
    outbound_listen_addr: tuple[Address, ...] = setting(
        listen_addresses, "auto", "Where the pod's own connections arrive; auto is loopback, port 4140."
    )
    admin_listen_addr: tuple[Address, ...] = setting(
        listen_addresses, "auto", "Where probes and metrics are served; auto is every address, port 4191."
    )

    pod_ips: tuple[IPv4Address | IPv6Address, ...] = setting(
        ip_list, None, "The pod's own addresses (status.podIPs): inbound serves these and no others."
    )
    pod_name: str = setting(text, None, "The pod's name (metadata.name).")
    pod_namespace: str = setting(text, None, "The pod's namespace (metadata.namespace).")
    node_name: str = setting(optional_text, "", "The node the pod runs on (spec.nodeName), for locality.")
    service_account: str = setting(text, "default", "The service account the pod runs as (spec.serviceAccountName).")
    mesh_namespace: str = setting(text, labels.MESH_NAMESPACE, "The namespace of the control plane.")
    trust_domain: str = setting(text, "cluster.local", "The suffix of every identity of this mesh.")

    identity_svc_addr: Address = setting(
        address, "identity-headless.tulle.svc.cluster.local:8080", "Where certificates are asked for."
    )
    identity_svc_name: str = setting(
        optional_text, "", "The identity required of that server; auto-derived when empty, ignored on loopback."
    )
    destination_svc_addr: Address = setting(
        address, "destination-headless.tulle.svc.cluster.local:8086", "Where discovery is asked for."
    )
    destination_svc_name: str = setting(
        optional_text, "", "The identity required of that server; auto-derived when empty, ignored on loopback."
    )
    trust_bundle_file: str = setting(
        text, f"{labels.BUNDLE_DIR}/{labels.BUNDLE_KEY}", "The trust anchors (PEM), re-read live."
    )
    token_file: str = setting(
        text, f"{labels.TOKEN_DIR}/{labels.TOKEN_FILE}", "The projected service-account token, re-read at each use."
    )

    external_workload: str = setting(
        optional_text, "", "The ExternalWorkload that this machine is, outside the cluster; empty in a pod."
    )
    identity_file: str = setting(
        text, "/var/lib/tulle/identity/identity", "Where such a machine keeps its key and certificate between starts."
    )

    inbound_default_policy: str = setting(
        one_of(*labels.INBOUND_POLICIES), "all-unauthenticated", "Who may call a port that no policy names."
    )
    cluster_networks: tuple[IPv4Network | IPv6Network, ...] = setting(
        network_list,
        "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8",
        "The networks that the cluster-* policies mean.",
    )
    inbound_opaque_ports: PortSet = setting(
        port_set, labels.DEFAULT_OPAQUE_PORTS, "Ports whose bytes are passed on without detection."
    )
    inbound_tls_unauthenticated_ports: PortSet = setting(
        port_set, "", "Ports that take TLS without a client certificate, whatever the policy: identity's own."
    )
    inbound_probes: tuple[Probe, ...] = setting(probes, "[]", "Plaintext GETs of the kubelet that need no identity.")
    metrics_identities: tuple[str, ...] = setting(
        text_list, "auto", "Who may read /metrics besides loopback; auto is the mesh's own Prometheus."
    )
    metrics_plaintext: bool = setting(boolean, "false", "Whether anyone may read /metrics without TLS.")

    inbound_detect_timeout: float = setting(
        duration, "10s", "How long an inbound client may take to show its protocol."
    )
    outbound_detect_timeout: float = setting(duration, "10s", "How long the application may take to show its protocol.")
    request_head_timeout: float = setting(
        duration, "30s", "How long a head of HTTP/1 may take from its first byte to its last."
    )
    request_body_timeout: float = setting(
        duration, "5m", "How long a body of HTTP/1 may rest before its response has begun."
    )
    peer_timeout: float = setting(
        duration, "30s", "How long another host may neither acknowledge nor make room for what it is sent."
    )
    max_connections: int = setting(
        count, "100000", "Open connections per direction, beyond which new ones are refused; fewer if descriptors are."
    )
    inbound_connect_timeout: float = setting(duration, "300ms", "How long a connection to the application may take.")
    outbound_connect_timeout: float = setting(duration, "1s", "How long TCP and TLS to a peer may take.")
    outbound_failfast_timeout: float = setting(duration, "3s", "How long a request waits for an endpoint before 503.")
    inbound_failfast_timeout: float = setting(
        duration, "1s", "How long a request waits for the application before 503."
    )
    max_in_flight: int = setting(count, "100000", "Requests in hand each way; one more is answered 503.")
    http1_pool_idle_timeout: float = setting(duration, "3s", "How long an unused HTTP/1 connection to a peer is kept.")
    discovery_idle_timeout: float = setting(duration, "5s", "How long discovery of an unused destination is kept.")

    identity_min_refresh: float = setting(duration, "10s", "The least time between two certificates.")
    identity_max_refresh: float = setting(duration, "24h", "The most time between two certificates.")
    metrics_retain_idle: float = setting(duration, "10m", "How long a series that no longer changes is kept.")
    stall_timeout: float = setting(
        duration, "1m", "How long a client may take nothing of a response that waits for it, before it is given up."
    )
    shutdown_grace_period: float = setting(duration, "2m", "How long open connections may last after SIGTERM.")
    shutdown_endpoint_enabled: bool = setting(boolean, "false", "Whether POST /shutdown from loopback ends the proxy.")
    disable_informational_headers: bool = setting(boolean, "false", "Whether l5d-* response headers are left out.")

    @property
    def identity(self) -> names.WorkloadIdentity:
        """Who this pod is."""
        return names.workload_identity(self.service_account, self.pod_namespace, self.mesh_namespace, self.trust_domain)

    @property
    def has_ipv6(self) -> bool:
        """Whether the pod can be reached over IPv6."""
        return any(ip.version == 6 for ip in self.pod_ips)


def _default(row: "Field[Any]") -> Any:
    if row.metadata["default"] is None:
        raise TypeError(f"{row.name} is not given and has no default")
    return row.metadata["parse"](row.metadata["default"])


def variable(row: "Field[Any]") -> str:
    """The environment variable of one row."""
    return PREFIX + row.name.upper()


def read(environ: Mapping[str, str]) -> Settings:
    """Settings out of an environment; raises SettingError for the first row, in table order, that cannot be used."""
    values: dict[str, Any] = {}
    for row in fields(Settings):
        written = environ.get(variable(row), row.metadata["default"])
        if written is None:
            raise SettingError(variable(row), None, f"set it. {row.metadata['sentence']} The injector does so")
        try:
            values[row.name] = row.metadata["parse"](written)
        except ValueError as error:
            raise SettingError(variable(row), written, f"{error}. {row.metadata['sentence']}") from error
    return _derived(Settings(**values))


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that are no setting: warned about, since Kubernetes makes such names for Services."""
    known = {variable(row) for row in fields(Settings)}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _derived(settings: Settings) -> Settings:
    """Fill in what follows from other settings."""
    if not settings.pod_ips:
        raise SettingError(PREFIX + "POD_IPS", "", "write the pod's addresses, separated by commas")
    try:
        mesh, domain = settings.mesh_namespace, settings.trust_domain
        settings.identity  # noqa: B018 (a name that cannot be is refused here, not at the first certificate)
    except names.InvalidNameError as error:
        raise SettingError(PREFIX + "SERVICE_ACCOUNT", settings.service_account, str(error)) from error
    wildcard, loopback = ("::", ("127.0.0.1", "::1")) if settings.has_ipv6 else ("0.0.0.0", ("127.0.0.1",))

    def component(name: str) -> str:
        return names.workload_identity(name, mesh, mesh, domain).dns_name

    metrics = (component("prometheus"),) if settings.metrics_identities == ("auto",) else settings.metrics_identities
    return replace(
        settings,
        inbound_listen_addr=settings.inbound_listen_addr or (Address(wildcard, labels.INBOUND_PORT),),
        outbound_listen_addr=settings.outbound_listen_addr
        or tuple(Address(host, labels.OUTBOUND_PORT) for host in loopback),
        admin_listen_addr=settings.admin_listen_addr or (Address(wildcard, labels.ADMIN_PORT),),
        identity_svc_name=settings.identity_svc_name or component("identity"),
        destination_svc_name=settings.destination_svc_name or component("destination"),
        metrics_identities=metrics,
    )
