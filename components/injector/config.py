"""What the injector is told: pure. One JSON document that the stack writes and the webhook, `tulle inject` and the
stack itself read.

Only shapes, defaults and their checks belong here; what an annotation may change is in `annotations`, what a pod gets
is in `patch`.
"""

from typing import Annotated, Final, Literal

import msgspec

from components.injector.values import InvalidValueError, check_duration, check_port_set
from proxy.api import labels

KNOWN_OVERRIDES: Final = (
    "access-log",
    "admin-port",
    "default-inbound-policy",
    "image-pull-policy",
    "inbound-port",
    "opaque-ports",
    "outbound-port",
    "proxy-admin-shutdown",
    "proxy-await",
    "proxy-cpu-limit",
    "proxy-cpu-ratio-limit",
    "proxy-cpu-request",
    "proxy-disable-inbound-protocol-detect-timeout",
    "proxy-disable-outbound-protocol-detect-timeout",
    "proxy-enable-native-sidecar",
    "proxy-ephemeral-storage-limit",
    "proxy-ephemeral-storage-request",
    "proxy-gid",
    "proxy-image",
    "proxy-inbound-connect-timeout",
    "proxy-log-format",
    "proxy-log-level",
    "proxy-memory-limit",
    "proxy-memory-request",
    "proxy-outbound-connect-timeout",
    "proxy-outbound-discovery-cache-unused-timeout",
    "proxy-uid",
    "proxy-version",
    "proxy-wait-before-exit-seconds",
    "shutdown-grace-period",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-subnets",
)
"""Every `config.linkerd.io/` annotation this injector gives a meaning to, without its prefix."""

CONFIG_MAP: Final = "injector-config"
"""ConfigMap in the mesh namespace that carries the configuration, under CONFIG_KEY."""
CONFIG_KEY: Final = "config.json"

NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
UserId = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
SidecarMode = Literal["auto", "native", "classic"]


class ConfigError(ValueError):
    """The injector's configuration cannot be used; the message names the field, the value and what is allowed."""


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Kubernetes quantities for the proxy and its init container; an empty string leaves the quantity out."""

    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    ephemeral_storage_request: str = ""
    ephemeral_storage_limit: str = ""


class ProxySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Everything that can differ between two injected pods: the mesh's defaults, then the namespace's and the pod's own
    annotations.
    """

    image: NonEmpty
    version: NonEmpty = "dev"
    image_pull_policy: PullPolicy = "IfNotPresent"
    image_pull_secret: str = ""
    """Name of a pull secret added to each injected pod; it must exist in that pod's namespace."""

    uid: UserId = labels.PROXY_UID
    gid: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    inbound_port: Port = labels.INBOUND_PORT
    outbound_port: Port = labels.OUTBOUND_PORT
    admin_port: Port = labels.ADMIN_PORT
    ipv6: bool = False
    """Listen on `[::]` and `[::1]` whatever the pod's addresses are. Needed only where ports are moved in a dual-stack
    cluster: otherwise the proxy listens on the families its pod has.
    """

    log_level: Literal["error", "warn", "info", "debug"] = "info"
    log_format: Literal["plain", "json"] = "plain"
    access_log: Literal["", "apache", "json"] = ""

    inbound_policy: Literal[
        "all-unauthenticated", "all-authenticated", "cluster-unauthenticated", "cluster-authenticated", "deny", "audit"
    ] = "all-unauthenticated"
    cluster_networks: str = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    opaque_ports: str = labels.DEFAULT_OPAQUE_PORTS
    tls_unauthenticated_ports: str = ""
    """Inbound ports that require TLS but take callers without a certificate: identity's own port, nothing else."""

    skip_inbound_ports: str = "4567,4568"
    skip_outbound_ports: str = "4567,4568"
    skip_subnets: str = ""
    redirect_mode: Literal["auto", "nft", "legacy"] = "auto"

    inbound_connect_timeout: str = "300ms"
    outbound_connect_timeout: str = "1s"
    inbound_detect_timeout: str = "10s"
    outbound_detect_timeout: str = "10s"
    discovery_idle_timeout: str = ""
    """How long an unused discovery is kept; empty leaves the proxy's own default."""
    shutdown_grace_period: str = "2m"
    """Upper bound of the drain after SIGTERM; never longer than the pod's terminationGracePeriodSeconds allows."""
    wait_before_exit_seconds: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 0
    admin_shutdown: bool = False
    wait: bool = True
    """Hold the application until the proxy has its certificate."""
    metrics_plaintext: bool = False
    resources: Resources = Resources()
    cpu_ratio_limit: str = ""
    """The share of a node's CPUs for which the proxy has workers at most; a CPU limit bounds them too."""

    identity_address: str = ""
    """`host:port` of identity; empty means its headless Service. A loopback address is called in plaintext."""
    destination_address: str = ""
    extra_env: dict[str, str] = {}
    """Further `TULLE_PROXY_` variables by their short name (`MAX_IN_FLIGHT`); these win over everything else."""


class InjectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The whole of the injector's configuration."""

    proxy: ProxySettings
    mesh_namespace: NonEmpty = labels.MESH_NAMESPACE
    trust_domain: NonEmpty = "cluster.local"
    cluster_domain: NonEmpty = "cluster.local"
    sidecar: SidecarMode = "auto"
    """`auto`: a native sidecar where the API server is 1.29 or newer, else a classic one."""
    cni_enabled: bool = False
    """A CNI plugin on the nodes sets the redirection: pods get a validator in place of the init container that needs
    NET_ADMIN.
    """
    token_lifetime_seconds: Annotated[int, msgspec.Meta(ge=600, le=86400)] = 3600
    allowed_overrides: tuple[str, ...] = KNOWN_OVERRIDES
    """The `config.linkerd.io/` annotations (without prefix) that a pod may carry; a namespace may carry any known one.
    """
    exempt_namespaces: tuple[str, ...] = ("kube-system", labels.MESH_NAMESPACE, labels.TRUST_NAMESPACE)
    """Never injected, whatever they are annotated with."""


def decode_config(document: bytes) -> InjectorConfig:
    """Read and check a configuration; raises ConfigError."""
    try:
        config = msgspec.json.decode(document, type=InjectorConfig)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"injector configuration: {error}") from error
    check_config(config)
    return config


def encode_config(config: InjectorConfig) -> bytes:
    """Write a configuration so that equal configurations give equal bytes."""
    check_config(config)
    return msgspec.json.format(msgspec.json.encode(config, order="sorted"), indent=2)


def check_config(config: InjectorConfig) -> None:
    """Check what the types cannot say; raises ConfigError."""
    proxy = config.proxy
    unknown = sorted(set(config.allowed_overrides) - set(KNOWN_OVERRIDES))
    if unknown:
        raise ConfigError(
            f"allowedOverrides: {unknown[0]!r} is not a known annotation; known: {', '.join(KNOWN_OVERRIDES)}"
        )
    if len({proxy.inbound_port, proxy.outbound_port, proxy.admin_port}) != 3:
        raise ConfigError("proxy.inboundPort, proxy.outboundPort and proxy.adminPort must be three different ports")
    try:
        for field in ("opaque_ports", "skip_inbound_ports", "skip_outbound_ports", "tls_unauthenticated_ports"):
            check_port_set(getattr(proxy, field))
        for field in (
            "inbound_connect_timeout",
            "outbound_connect_timeout",
            "inbound_detect_timeout",
            "outbound_detect_timeout",
            "shutdown_grace_period",
        ):
            check_duration(getattr(proxy, field))
    except InvalidValueError as error:
        raise ConfigError(
            f"proxy.{field}: {getattr(proxy, field)!r} is not allowed; allowed: {error.allowed}"
        ) from error
