"""What the `config.linkerd.io/` annotations of a namespace and of a pod change: pure.

A table from annotation to the setting it changes. The pod's own value wins over its namespace's. A value outside the
allowed ones is an error that names annotation, value and what is allowed: it is never dropped in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from components.injector import values
from components.injector.config import KNOWN_OVERRIDES, ProxySettings
from components.injector.values import InvalidValueError
from proxy.api import labels

NATIVE_SIDECAR: Final = "proxy-enable-native-sidecar"

SPELLINGS: Final = {
    "config.alpha.linkerd.io/proxy-enable-native-sidecar": NATIVE_SIDECAR,
    "config.beta.linkerd.io/proxy-enable-native-sidecar": NATIVE_SIDECAR,
    "config.alpha.linkerd.io/proxy-wait-before-exit-seconds": "proxy-wait-before-exit-seconds",
}
"""Older names of annotations that users still have in their manifests."""

WITHOUT_EFFECT: Final = frozenset(
    {
        "close-wait-timeout",
        "control-port",
        "debug-image",
        "debug-image-pull-policy",
        "debug-image-version",
        "enable-debug-sidecar",
        "enable-external-profiles",
        "enable-gateway",
        "pod-inbound-ports",
        "proxy-additional-env",
        "proxy-inbound-discovery-cache-unused-timeout",
        "proxy-log-http-headers",
        "proxy-metrics-hostname-labels",
        "proxy-require-identity-inbound-ports",
    }
)
"""Linkerd's annotations that do nothing here: a pod that carries one is told so by an event, since it may count on it.
"""

NOT_FOR_PODS: Final = frozenset({"admission-webhooks"})
"""Under the same prefix, but a label of namespaces."""


class AnnotationError(ValueError):
    """An annotation that cannot be honoured; the message names it, its value, where it is and what is allowed."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the annotations amount to."""

    settings: ProxySettings
    native_sidecar: bool | None
    """What the annotation forces, if it does."""
    without_effect: tuple[str, ...]
    """Annotations that were read and do nothing, to be told to the owner."""


Change = Callable[[ProxySettings, str, Mapping[str, int]], ProxySettings]


def _simple(field: str, parse: Callable[[str], Any]) -> Change:
    def change(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
        return msgspec.structs.replace(settings, **{field: parse(value)})

    return change


def _ports(field: str) -> Change:
    def change(settings: ProxySettings, value: str, named: Mapping[str, int]) -> ProxySettings:
        return msgspec.structs.replace(settings, **{field: values.check_port_set(value, dict(named))})

    return change


def _resource(field: str) -> Change:
    def change(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
        resources = msgspec.structs.replace(settings.resources, **{field: values.check_quantity(value)})
        return msgspec.structs.replace(settings, resources=resources)

    return change


def _image(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
    """A bare name keeps the mesh's tag, so that `proxy-image` alone moves to another registry."""
    name, suffix = values.split_image(values.check_image(value))
    kept = values.split_image(settings.image)[1]
    return msgspec.structs.replace(settings, image=name + (suffix or kept))


def _version(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
    """Another tag of the same image; a digest pinned by the mesh no longer holds then."""
    name = values.split_image(settings.image)[0]
    return msgspec.structs.replace(settings, image=f"{name}:{values.check_tag(value)}", version=value)


def _nothing(check: Callable[[str], Any]) -> Change:
    def change(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
        check(value)
        return settings

    return change


def _no_detect_timeout(field: str) -> Change:
    def change(settings: ProxySettings, value: str, _: Mapping[str, int]) -> ProxySettings:
        return msgspec.structs.replace(settings, **{field: "365d"}) if values.check_boolean(value) else settings

    return change


def _port(value: str) -> int:
    return values.check_integer(value, 1, 65535)


CHANGES: Final[Mapping[str, Change]] = {
    "access-log": _simple("access_log", lambda value: values.check_choice(value, ("", "apache", "json"))),
    "admin-port": _simple("admin_port", _port),
    "default-inbound-policy": _simple(
        "inbound_policy", lambda value: values.check_choice(value, labels.INBOUND_POLICIES)
    ),
    "image-pull-policy": _simple(
        "image_pull_policy", lambda value: values.check_choice(value, ("Always", "IfNotPresent", "Never"))
    ),
    "inbound-port": _simple("inbound_port", _port),
    "opaque-ports": _ports("opaque_ports"),
    "outbound-port": _simple("outbound_port", _port),
    "proxy-admin-shutdown": _simple("admin_shutdown", values.check_enabled),
    "proxy-await": _simple("wait", values.check_enabled),
    "proxy-cpu-limit": _resource("cpu_limit"),
    "proxy-cpu-ratio-limit": _simple("cpu_ratio_limit", values.check_ratio),
    "proxy-cpu-request": _resource("cpu_request"),
    "proxy-disable-inbound-protocol-detect-timeout": _no_detect_timeout("inbound_detect_timeout"),
    "proxy-disable-outbound-protocol-detect-timeout": _no_detect_timeout("outbound_detect_timeout"),
    "proxy-ephemeral-storage-limit": _resource("ephemeral_storage_limit"),
    "proxy-ephemeral-storage-request": _resource("ephemeral_storage_request"),
    "proxy-gid": _simple("gid", lambda value: values.check_integer(value, 0, 2**31 - 1)),
    "proxy-image": _image,
    "proxy-inbound-connect-timeout": _simple("inbound_connect_timeout", values.check_duration),
    "proxy-log-format": _simple("log_format", lambda value: values.check_choice(value, ("plain", "json"))),
    "proxy-log-level": _simple("log_level", values.check_log_level),
    "proxy-memory-limit": _resource("memory_limit"),
    "proxy-memory-request": _resource("memory_request"),
    "proxy-outbound-connect-timeout": _simple("outbound_connect_timeout", values.check_duration),
    "proxy-outbound-discovery-cache-unused-timeout": _simple("discovery_idle_timeout", values.check_duration),
    "proxy-uid": _simple("uid", lambda value: values.check_integer(value, 1, 2**31 - 1)),
    "proxy-version": _version,
    "proxy-wait-before-exit-seconds": _simple(
        "wait_before_exit_seconds", lambda value: values.check_integer(value, 0, 3600)
    ),
    "shutdown-grace-period": _simple("shutdown_grace_period", values.check_duration),
    "skip-inbound-ports": _ports("skip_inbound_ports"),
    "skip-outbound-ports": _ports("skip_outbound_ports"),
    "skip-subnets": _simple("skip_subnets", values.check_networks),
}


def apply_annotations(
    settings: ProxySettings,
    namespace: Mapping[str, str],
    pod: Mapping[str, str],
    named_ports: Mapping[str, int],
    allowed: frozenset[str],
) -> Overrides:
    """The mesh's settings with a namespace's and a pod's annotations on top; raises AnnotationError."""
    merged: dict[str, tuple[str, str, str]] = {}
    without_effect: list[str] = []
    for place, annotations in (("namespace", namespace), ("pod", pod)):
        for key in sorted(annotations):
            name = _short_name(key)
            if name is None:
                continue
            if name not in KNOWN_OVERRIDES:
                if name not in NOT_FOR_PODS:
                    without_effect.append(key)
                continue
            if place == "pod" and name not in allowed and annotations[key] != namespace.get(key):
                raise AnnotationError(
                    f"the pod's annotation {key}={annotations[key]!r} is not allowed in this mesh; "
                    f"pods may set: {', '.join(sorted(allowed)) or 'nothing'}; ask for it to be set on the namespace "
                    "instead"
                )
            merged[name] = (place, key, annotations[key])
    native: bool | None = None
    for name, (place, key, value) in merged.items():
        try:
            if name == NATIVE_SIDECAR:
                native = values.check_boolean(value.strip())
            else:
                settings = CHANGES[name](settings, value.strip(), named_ports)
        except InvalidValueError as error:
            raise AnnotationError(
                f"the {place}'s annotation {key}={value!r} is not valid; allowed: {error.allowed}"
            ) from error
    if len({settings.inbound_port, settings.outbound_port, settings.admin_port}) != 3:
        raise AnnotationError(
            f"annotations {labels.CONFIG_PREFIX}inbound-port={settings.inbound_port}, "
            f"outbound-port={settings.outbound_port} "
            f"and admin-port={settings.admin_port} must be three different ports"
        )
    return Overrides(settings, native, tuple(dict.fromkeys(without_effect)))


def _short_name(key: str) -> str | None:
    """The annotation's name without prefix, or None where it is none of ours to read."""
    if key in SPELLINGS:
        return SPELLINGS[key]
    return key[len(labels.CONFIG_PREFIX) :] if key.startswith(labels.CONFIG_PREFIX) else None
