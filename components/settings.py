"""Stack config read once: pure. Texts as Pulumi gives them in, the mesh's typed arguments out, or one error that names
the key.

Types, defaults and sentences stand in `Pulumi.yaml`; here is what types cannot say. Components never read config
themselves.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from components.args import ImageArgs, MeshArgs, ProxyArgs
from components.deploy.errors import DeployError
from components.deploy.target import choose
from components.injector.config import KNOWN_OVERRIDES
from proxy.api import labels

PROJECT: Final = "tulle"
IMAGES: Final = ("proxy", "control", "prometheus")
LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DURATION: Final = re.compile(r"[1-9][0-9]*(ms|s|m|h|d)")
PROMETHEUS_DURATION: Final = re.compile(r"[1-9][0-9]*(ms|s|m|h|d|w|y)")
QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
REPLICAS: Final = range(1, 10)


class SettingsError(DeployError):
    """A config value that cannot be used."""

    def __init__(self, key: str, value: object, wanted: str) -> None:
        super().__init__(
            f"config key {key} is {value!r}, but must be {wanted}", f"Set it with -c {key}=... or in the stack's file."
        )


class Reader:
    """Takes values out of a raw config, and knows at the end which keys nobody asked for."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        self._raw = {
            key.removeprefix(f"{PROJECT}:"): value for key, value in raw.items() if key.startswith(f"{PROJECT}:")
        }
        self._asked: set[str] = set()

    def text(self, key: str, pattern: re.Pattern[str] | None = None, wanted: str = "") -> str:
        """A text, of a form if one is given."""
        value = self._take(key)
        if pattern is not None and not pattern.fullmatch(value):
            raise SettingsError(key, value, wanted)
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of a few words."""
        value = self._take(key)
        if value not in allowed:
            raise SettingsError(key, value, f"one of {', '.join(allowed)}")
        return value

    def number(self, key: str, allowed: range) -> int:
        """An integer in a range."""
        wanted = f"an integer from {allowed.start} to {allowed.stop - 1}"
        try:
            value = int(self._take(key))
        except ValueError:
            raise SettingsError(key, self._raw[key], wanted) from None
        if value not in allowed:
            raise SettingsError(key, value, wanted)
        return value

    def flag(self, key: str) -> bool:
        """A boolean."""
        return self.choice(key, ("true", "false")) == "true"

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        value = self._json(key, list, "a list of texts")
        if not all(isinstance(item, str) for item in value):
            raise SettingsError(key, value, "a list of texts")
        return list(value)

    def mapping(self, key: str, keys: tuple[str, ...]) -> dict[str, str]:
        """Texts by name, with known names only."""
        wanted = f"an object with texts under some of {', '.join(keys)}"
        value = self._json(key, dict, wanted)
        if not all(name in keys and isinstance(item, str) for name, item in value.items()):
            raise SettingsError(key, value, wanted)
        return dict(value)

    def ports(self, key: str) -> str:
        """A port set as proxies read it: `25,587,9000-9005`, or empty."""
        value = self._take(key)
        for part in value.split(",") if value else ():
            ends = part.strip().split("-")
            if (
                len(ends) > 2
                or not all(end.isdigit() and 0 < int(end) < 65536 for end in ends)
                or int(ends[0]) > int(ends[-1])
            ):
                raise SettingsError(key, value, "ports and port ranges with commas between, like 25,587,9000-9005")
        return value

    def networks(self, key: str) -> str:
        """CIDR networks with commas between."""
        value = self._take(key)
        try:
            for part in value.split(","):
                ipaddress.ip_network(part.strip())
        except ValueError as error:
            raise SettingsError(key, value, f"networks with commas between ({error})") from None
        return value

    def finish(self) -> None:
        """Refuse keys that no setting has."""
        unknown = sorted(set(self._raw) - self._asked)
        if unknown:
            raise DeployError(
                f"unknown config key {unknown[0]!r}", "Pulumi.yaml lists all keys; remove it from the stack's file."
            )

    def _take(self, key: str) -> str:
        self._asked.add(key)
        if key not in self._raw:
            raise DeployError(
                f"config key {key} has no value", "Its default stands in Pulumi.yaml: run from a complete clone."
            )
        return self._raw[key]

    def _json(self, key: str, kind: type, wanted: str) -> Any:
        try:
            value = json.loads(self._take(key))
        except ValueError:
            raise SettingsError(key, self._raw[key], wanted) from None
        if not isinstance(value, kind):
            raise SettingsError(key, value, wanted)
        return value


def read(raw: Mapping[str, str], stack: str, environment: Mapping[str, str]) -> MeshArgs:
    """The mesh's arguments from a stack's complete config; raises DeployError for what cannot be used."""
    reader = Reader(raw)
    target = choose(stack, raw, "", "", environment)
    label, domain = "a DNS label (lower case, at most 63 characters)", "a DNS name in lower case"
    args: MeshArgs = {
        "cluster": {"kubeconfig": target.kubeconfig, "context": target.context},
        "names": {
            "mesh_namespace": reader.text("meshNamespace", LABEL, label),
            "trust_namespace": reader.text("trustNamespace", LABEL, label),
            "trust_domain": reader.text("trustDomain", DOMAIN, domain),
            "cluster_domain": reader.text("clusterDomain", DOMAIN, domain),
        },
        "images": _images(reader),
        "replicas": reader.number("replicas", REPLICAS),
        "meshed_namespaces": reader.texts("meshedNamespaces"),
        "leaf_lifetime": reader.text("identity.leafLifetime", DURATION, "a duration like 24h"),
        "trust": {
            "protect": reader.flag("trust.protect"),
            "issuer_certificate": reader.text("trust.issuerCertificate"),
            "issuer_key": reader.text("trust.issuerKey"),
            "bundle": reader.text("trust.bundle"),
        },
        "proxy": _proxy(reader),
        "telemetry": {
            "enabled": reader.flag("prometheus.enabled"),
            "url": reader.text("prometheus.url", re.compile(r"(https?://\S+)?"), "empty or an http(s) address"),
            "retention": reader.text("prometheus.retention", PROMETHEUS_DURATION, "a duration like 6h or 15d"),
            "scrape_interval": reader.text("prometheus.scrapeInterval", PROMETHEUS_DURATION, "a duration like 10s"),
        },
        "demo": {"enabled": reader.flag("demo.enabled"), "rate": reader.number("demo.rate", range(10_001))},
    }
    reader.finish()
    names = args["names"]
    if names["mesh_namespace"] == names["trust_namespace"]:
        raise SettingsError("trustNamespace", names["trust_namespace"], "another namespace than meshNamespace")
    for namespace in args["meshed_namespaces"]:
        taken = {"kube-system", "default", names["mesh_namespace"], names["trust_namespace"]}
        if not LABEL.fullmatch(namespace) or namespace in taken:
            raise SettingsError("meshedNamespaces", namespace, f"{label}, and none of {', '.join(sorted(taken))}")
    return args


def _images(reader: Reader) -> ImageArgs:
    registry, tag = reader.text("images.registry").rstrip("/"), reader.text("images.tag")
    digests, refs = reader.mapping("images.digests", IMAGES), reader.mapping("images.refs", IMAGES)
    for digest in digests.values():
        if not DIGEST.fullmatch(digest):
            raise SettingsError("images.digests", digest, "sha256: and 64 hexadecimal digits")
    found = {
        name: refs.get(name) or f"{registry}/{name}" + (f"@{digests[name]}" if name in digests else f":{tag}")
        for name in IMAGES
    }
    version = refs["proxy"].rpartition(":")[2] if "proxy" in refs else tag
    return {
        "proxy": found["proxy"],
        "control": found["control"],
        "prometheus": found["prometheus"],
        "version": version[:63],
        "pull_policy": reader.choice("images.pullPolicy", ("Always", "IfNotPresent", "Never")),
        "pull_secret": reader.text("images.pullSecret"),
    }


def _proxy(reader: Reader) -> ProxyArgs:
    overrides = reader.texts("proxy.allowedOverrides")
    unknown = sorted(set(overrides) - {"*", *KNOWN_OVERRIDES})
    if unknown:
        raise SettingsError("proxy.allowedOverrides", unknown[0], f"one of {', '.join(KNOWN_OVERRIDES)}")
    quantity = "a quantity like 10m or 32Mi"
    return {
        "inbound_policy": reader.choice("proxy.inboundPolicy", labels.INBOUND_POLICIES),
        "opaque_ports": reader.ports("proxy.opaquePorts"),
        "skip_inbound_ports": reader.ports("proxy.skipInboundPorts"),
        "skip_outbound_ports": reader.ports("proxy.skipOutboundPorts"),
        "cluster_networks": reader.networks("proxy.clusterNetworks"),
        "sidecar": reader.choice("proxy.sidecar", ("auto", "native", "classic")),
        "ipv6": reader.flag("proxy.ipv6"),
        "log_level": reader.choice("proxy.logLevel", ("error", "warn", "info", "debug")),
        "log_format": reader.choice("proxy.logFormat", ("plain", "json")),
        "metrics_plaintext": reader.flag("proxy.metricsPlaintext"),
        "cpu_request": reader.text("proxy.cpuRequest", QUANTITY, quantity),
        "memory_request": reader.text("proxy.memoryRequest", QUANTITY, quantity),
        "memory_limit": reader.text("proxy.memoryLimit", QUANTITY, quantity),
        "allowed_overrides": overrides,
    }
