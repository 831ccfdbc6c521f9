"""What an injected pod looks like: pure. A pod and its settings in, the pod with init container and sidecar out.

The webhook, `tulle inject --manual` and the stack (for the control plane's own pods) all call `inject_pod`, so they
give the same pod. Whether a pod is injected at all is decided in `decide`; how the difference is written as JSON Patch
is in `jsonpatch`.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from components.injector.config import InjectorConfig, ProxySettings
from components.injector.values import milliseconds, whole_cpus
from proxy.api import labels, names

Json = dict[str, Any]

CREATED_BY: Final = "linkerd.io/created-by"
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
OWNER_LABEL: Final = "linkerd.io/proxy-"
LOCK_VOLUME: Final = "linkerd-proxy-init-xtables-lock"
ENV: Final = "TULLE_PROXY_"
WAIT_SECONDS: Final = 120
"""How long the application is held for the proxy's first certificate, as Linkerd's `linkerd-await --timeout=2m`."""
KILL_MARGIN_MS: Final = 2_000
"""The drain ends this long before the kubelet would kill the pod, so that the proxy's last counters and log lines get
out.
"""
DEFAULT_TERMINATION_SECONDS: Final = 30
MAX_LABEL: Final = 63
VALIDATOR_UID: Final = 65534
"""Nobody's, as in Linkerd."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The workload a pod belongs to: `deployment`, `statefulset`, `daemonset`, `job`, `cronjob`, `replicaset`, ..."""

    kind: str
    name: str


def inject_pod(
    pod: Mapping[str, Any],
    config: InjectorConfig,
    settings: ProxySettings,
    *,
    native: bool,
    owner: Owner | None = None,
) -> Json:
    """A pod (or pod template: a mapping with `metadata` and `spec`) with the data plane added; the argument is left as
    it was.
    """
    result: Json = copy.deepcopy(dict(pod))
    metadata = result.setdefault("metadata", {})
    spec = result["spec"]
    metadata["labels"] = _labels(metadata.get("labels") or {}, config, owner)
    annotations = {**(metadata.get("annotations") or {}), labels.PROXY_VERSION: settings.version}
    annotations.setdefault(CREATED_BY, f"tulle/injector {settings.version}")
    containers = list(spec["containers"])
    inits = list(spec.get("initContainers") or [])
    proxy = proxy_container(spec, config, settings, native=native)
    annotations.pop(labels.REDIRECT, None)
    if config.cni_enabled:
        annotations[labels.REDIRECT] = " ".join("".join(word.split()) for word in redirect_arguments(settings))
        redirect = validator_container(settings)
    else:
        redirect = redirect_container(settings)
    if native:
        # Before the application's own init containers, so that these already speak through the mesh.
        inits = [redirect, proxy, *inits]
    else:
        # Redirection comes last: with it in place and no proxy yet, an init container after it would have no network.
        # Where a plugin has set it, it is in place from the start: the sooner that is proven, the better.
        inits.insert(0 if config.cni_enabled else len(inits), redirect)
        # First, so that the kubelet starts no application container before the proxy's postStart hook has returned.
        annotations.setdefault(DEFAULT_CONTAINER, containers[0]["name"])
        containers.insert(0, proxy)
    metadata["annotations"] = annotations
    spec["containers"] = containers
    spec["initContainers"] = inits
    spec["volumes"] = [*(spec.get("volumes") or []), *_volumes(config)]
    if settings.image_pull_secret:
        secrets = list(spec.get("imagePullSecrets") or [])
        if all(secret.get("name") != settings.image_pull_secret for secret in secrets):
            spec["imagePullSecrets"] = [*secrets, {"name": settings.image_pull_secret}]
    return result


def redirect_arguments(settings: ProxySettings) -> list[str]:
    """How a pod's TCP is to be led through its proxy: arguments of the init container and of the validator, words of
    the annotation that the CNI plugin reads (`proxy.redirect.arguments`).
    """
    # The proxy's own listeners are never redirected to themselves.
    inbound_skip = ",".join(filter(None, (str(labels.TAP_PORT), str(settings.admin_port), settings.skip_inbound_ports)))
    args = [
        "--inbound-port", str(settings.inbound_port),
        "--outbound-port", str(settings.outbound_port),
        "--proxy-uid", str(settings.uid),
    ]  # fmt: skip
    if settings.gid is not None:
        args += ["--proxy-gid", str(settings.gid)]
    args += ["--inbound-skip-ports", inbound_skip]
    if settings.skip_outbound_ports:
        args += ["--outbound-skip-ports", settings.skip_outbound_ports]
    if settings.skip_subnets:
        args += ["--skip-subnets", settings.skip_subnets]
    return [*args, "--mode", settings.redirect_mode]


def redirect_container(settings: ProxySettings) -> Json:
    """The init container that sends the pod's TCP through the proxy: root, with the two capabilities packet filters
    need.
    """
    return {
        "name": labels.INIT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "proxy.redirect"],
        "args": redirect_arguments(settings),
        **_resources(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": LOCK_VOLUME, "mountPath": "/run"}],
    }


def validator_container(settings: ProxySettings) -> Json:
    """The init container that proves what a CNI plugin has done, and otherwise keeps the pod from starting: a user
    like any other, with no right at all.
    """
    return {
        "name": labels.VALIDATOR_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "proxy.redirect.validate"],
        "args": redirect_arguments(settings),
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in (("POD_IPS", "status.podIPs"), ("NODE_NAME", "spec.nodeName"))
        ],
        **_resources(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            # Anyone but the proxy's own user, whose connections are not redirected.
            "runAsGroup": VALIDATOR_UID,
            "runAsNonRoot": True,
            "runAsUser": VALIDATOR_UID if settings.uid != VALIDATOR_UID else VALIDATOR_UID - 1,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def proxy_container(spec: Mapping[str, Any], config: InjectorConfig, settings: ProxySettings, *, native: bool) -> Json:
    """The sidecar: a restartable init container, or a classic container that holds the next ones until it is ready."""
    security: Json = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        # A group of its own: without one, a user that the image does not know would run in root's.
        "runAsGroup": settings.uid if settings.gid is None else settings.gid,
        "runAsNonRoot": True,
        "runAsUser": settings.uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container: Json = {
        "name": labels.PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python3", "-m", "proxy"],
        "env": proxy_env(spec, config, settings),
        "ports": [
            {"name": "linkerd-proxy", "containerPort": settings.inbound_port, "protocol": "TCP"},
            {"name": "linkerd-admin", "containerPort": settings.admin_port, "protocol": "TCP"},
        ],
        "livenessProbe": {**_admin_get("/live", settings), "initialDelaySeconds": 10, "timeoutSeconds": 1},
        "readinessProbe": {**_admin_get("/ready", settings), "periodSeconds": 1, "timeoutSeconds": 1},
        **_resources(settings),
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": labels.BUNDLE_VOLUME, "mountPath": labels.BUNDLE_DIR, "readOnly": True},
            {"name": labels.TOKEN_VOLUME, "mountPath": labels.TOKEN_DIR, "readOnly": True},
        ],
    }
    lifecycle: Json = {}
    if native:
        container["restartPolicy"] = "Always"
        if settings.wait:
            # The hook below has seen `/ready`, which never regresses: asking again, once a second, only delays the pod.
            del container["readinessProbe"]
    if settings.wait:
        # Also for native sidecars: the kubelet starts what follows as soon as the hook returns, where a startupProbe,
        # at one try a second, would cost every pod about a second.
        wait = ["python3", "-m", "proxy.wait_ready", "--timeout", str(WAIT_SECONDS)]
        if settings.admin_port != labels.ADMIN_PORT:
            wait += ["--port", str(settings.admin_port)]
        lifecycle["postStart"] = {"exec": {"command": wait}}
    if settings.wait_before_exit_seconds:
        lifecycle["preStop"] = {"exec": {"command": ["sleep", str(settings.wait_before_exit_seconds)]}}
    if lifecycle:
        container["lifecycle"] = lifecycle
    return container


def proxy_env(spec: Mapping[str, Any], config: InjectorConfig, settings: ProxySettings) -> list[Json]:
    """The proxy's environment. First who the pod is, then addresses, then settings."""
    from_pod = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_IPS": "status.podIPs",
        "NODE_NAME": "spec.nodeName",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
    }
    plain = {
        "MESH_NAMESPACE": config.mesh_namespace,
        "TRUST_DOMAIN": config.trust_domain,
        **_listen_addresses(settings),
        "IDENTITY_SVC_ADDR": settings.identity_address or service_address(config, "identity", labels.IDENTITY_PORT),
        "IDENTITY_SVC_NAME": component_identity(config, "identity"),
        "DESTINATION_SVC_ADDR": settings.destination_address
        or service_address(config, "destination", labels.DESTINATION_PORT),
        "DESTINATION_SVC_NAME": component_identity(config, "destination"),
        "TRUST_BUNDLE_FILE": f"{labels.BUNDLE_DIR}/{labels.BUNDLE_KEY}",
        "TOKEN_FILE": f"{labels.TOKEN_DIR}/{labels.TOKEN_FILE}",
        "LOG": settings.log_level,
        "LOG_FORMAT": settings.log_format,
        "INBOUND_DEFAULT_POLICY": settings.inbound_policy,
        "CLUSTER_NETWORKS": settings.cluster_networks,
        "INBOUND_OPAQUE_PORTS": settings.opaque_ports,
        "INBOUND_PROBES": _compact(kubelet_probes(spec)),
        "METRICS_IDENTITIES": component_identity(config, "prometheus"),
        "METRICS_PLAINTEXT": "true" if settings.metrics_plaintext else "false",
        "INBOUND_CONNECT_TIMEOUT": settings.inbound_connect_timeout,
        "OUTBOUND_CONNECT_TIMEOUT": settings.outbound_connect_timeout,
        "INBOUND_DETECT_TIMEOUT": settings.inbound_detect_timeout,
        "OUTBOUND_DETECT_TIMEOUT": settings.outbound_detect_timeout,
        "SHUTDOWN_GRACE_PERIOD": _shutdown_grace(spec, settings),
        "SHUTDOWN_ENDPOINT_ENABLED": "true" if settings.admin_shutdown else "false",
    }
    if settings.access_log:
        plain["ACCESS_LOG"] = settings.access_log
    if settings.discovery_idle_timeout:
        plain["DISCOVERY_IDLE_TIMEOUT"] = settings.discovery_idle_timeout
    if settings.tls_unauthenticated_ports:
        plain["INBOUND_TLS_UNAUTHENTICATED_PORTS"] = settings.tls_unauthenticated_ports
    cpus = whole_cpus(settings.resources.cpu_limit) if settings.resources.cpu_limit else 1
    # As bounds, not as a number: a node may have fewer.
    if cpus > 1:
        plain["CORES_MAX"] = str(cpus)
    elif settings.cpu_ratio_limit and not settings.resources.cpu_limit:
        plain["CORES_MAX_RATIO"] = settings.cpu_ratio_limit
    plain.update(settings.extra_env)
    downward = [
        {"name": ENV + name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in from_pod.items()
        if name not in settings.extra_env
    ]
    return [*downward, *({"name": ENV + name, "value": value} for name, value in plain.items())]


def _listen_addresses(settings: ProxySettings) -> dict[str, str]:
    """Nothing where all is as usual: the proxy then listens on both families where its pod has both."""
    usual = (labels.INBOUND_PORT, labels.OUTBOUND_PORT, labels.ADMIN_PORT)
    if not settings.ipv6 and (settings.inbound_port, settings.outbound_port, settings.admin_port) == usual:
        return {}
    everywhere = "[::]" if settings.ipv6 else "0.0.0.0"
    loopback = ("127.0.0.1", "[::1]") if settings.ipv6 else ("127.0.0.1",)
    return {
        "INBOUND_LISTEN_ADDR": f"{everywhere}:{settings.inbound_port}",
        "OUTBOUND_LISTEN_ADDR": ",".join(f"{host}:{settings.outbound_port}" for host in loopback),
        "ADMIN_LISTEN_ADDR": f"{everywhere}:{settings.admin_port}",
    }


def kubelet_probes(spec: Mapping[str, Any]) -> list[Json]:
    """The plaintext GETs that the kubelet makes to this pod: what the proxy must let through, and nothing more.

    HTTPS, gRPC, TCP and other hosts' probes are left out: the first two cannot be told apart from traffic by port and
    path.
    """
    found: dict[tuple[int, str], Json] = {}
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if container.get("name") == labels.PROXY_CONTAINER:
            continue
        named = container_ports([container])
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(kind) for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
        handlers += [lifecycle.get(kind) for kind in ("postStart", "preStop")]
        for handler in handlers:
            get = (handler or {}).get("httpGet")
            if not get or get.get("host") or str(get.get("scheme") or "HTTP").upper() != "HTTP":
                continue
            port = named.get(str(get.get("port")), get.get("port"))
            if isinstance(port, str) and port.isdigit():
                port = int(port)
            if isinstance(port, int):
                path = get.get("path") or "/"
                path = path if path.startswith("/") else f"/{path}"
                found[(port, path)] = {"port": port, "path": path}
    return [found[key] for key in sorted(found)]


def container_ports(containers: list[Json]) -> dict[str, int]:
    """The named ports that containers declare."""
    return {
        port["name"]: int(port["containerPort"])
        for container in containers
        for port in container.get("ports") or []
        if port.get("name")
    }


def component_identity(config: InjectorConfig, component: str) -> str:
    """The mesh identity of a control-plane component, whose service account has its name."""
    return names.workload_identity(
        component, config.mesh_namespace, config.mesh_namespace, config.trust_domain
    ).dns_name


def service_address(config: InjectorConfig, component: str, port: int) -> str:
    """`host:port` of a control-plane component's headless Service."""
    # The dot at the end makes the name absolute: without it the resolver tries each search domain first (ndots:5).
    return f"{component}-headless.{config.mesh_namespace}.svc.{config.cluster_domain}.:{port}"


def _labels(existing: Mapping[str, str], config: InjectorConfig, owner: Owner | None) -> dict[str, str]:
    result = {**existing, labels.CONTROL_PLANE_NAMESPACE: config.mesh_namespace}
    # A label value holds 63 characters and a workload's name may have 253: then the label is left out, not the pod
    # refused.
    if owner is not None and len(owner.name) <= MAX_LABEL:
        result[OWNER_LABEL + owner.kind] = owner.name
    return result


def _volumes(config: InjectorConfig) -> list[Json]:
    token = {
        "audience": names.token_audience(config.mesh_namespace, config.trust_domain),
        "expirationSeconds": config.token_lifetime_seconds,
        "path": labels.TOKEN_FILE,
    }
    # Only who sets rules has to lock them.
    lock = [] if config.cni_enabled else [{"name": LOCK_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    return [
        *lock,
        {"name": labels.TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": labels.BUNDLE_VOLUME, "configMap": {"name": labels.BUNDLE_CONFIG_MAP}},
    ]


def _resources(settings: ProxySettings) -> Json:
    # The init container has the proxy's own, so that it adds nothing to what the scheduler counts for the pod.
    given = settings.resources
    requests = {
        "cpu": given.cpu_request,
        "memory": given.memory_request,
        "ephemeral-storage": given.ephemeral_storage_request,
    }
    limits = {"cpu": given.cpu_limit, "memory": given.memory_limit, "ephemeral-storage": given.ephemeral_storage_limit}
    kept = {
        kind: {name: value for name, value in quantities.items() if value}
        for kind, quantities in (("requests", requests), ("limits", limits))
    }
    kept = {kind: quantities for kind, quantities in kept.items() if quantities}
    return {"resources": kept} if kept else {}


def _admin_get(path: str, settings: ProxySettings) -> Json:
    return {"httpGet": {"path": path, "port": settings.admin_port}}


def _shutdown_grace(spec: Mapping[str, Any], settings: ProxySettings) -> str:
    given = spec.get("terminationGracePeriodSeconds")
    seconds = DEFAULT_TERMINATION_SECONDS if given is None else int(given)
    room = max(seconds * 1_000 - settings.wait_before_exit_seconds * 1_000 - KILL_MARGIN_MS, 1_000)
    wanted = milliseconds(settings.shutdown_grace_period)
    return settings.shutdown_grace_period if wanted <= room else f"{room}ms"


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
