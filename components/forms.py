"""What each config key may hold: pure. A form turns the text that Pulumi hands over into a value, or refuses it, and
says in words what it allows.

Types, defaults and sentences of the same keys stand in `Pulumi.yaml`; what several keys must agree on is in `settings`.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from components.injector.config import KNOWN_OVERRIDES
from proxy.api import labels

IMAGES: Final = ("proxy", "control", "prometheus")
REVISED: Final = ("proxy", "control")
"""The images of a revision; all revisions share one Prometheus."""
LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_LABEL: Final = "a DNS label (lower case, at most 63 characters)"
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_TEXT: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PROMETHEUS_DURATION: Final = re.compile(r"[1-9][0-9]*(ms|s|m|h|d|w|y)")
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_REFERENCE: Final = re.compile(r"\S+")
_REVISION: Final = re.compile(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SHORTEST_LEAF: Final = 60.0
"""Seconds: identity signs nothing shorter, since proxies would renew it faster than they may."""

SHORTEST_ISSUER: Final = 600.0
"""Seconds: a third of it must be time enough for several tries of a renewal."""


class Form(Protocol):
    """One kind of value."""

    @property
    def allowed(self) -> str:
        """What it allows, in words that end the sentence `it must be ...`."""

    def parse(self, text: str) -> Any:
        """The value; raises ValueError for what is not allowed."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, of a pattern if there is one."""

    allowed: str
    pattern: re.Pattern[str] | None = None

    def parse(self, text: str) -> str:
        """The text itself."""
        if self.pattern is not None and not self.pattern.fullmatch(text):
            raise ValueError(text)
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """The words."""
        return f"one of {', '.join(self.words)}"

    def parse(self, text: str) -> str:
        """The word."""
        if text not in self.words:
            raise ValueError(text)
        return text


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    allowed: str = "true or false"

    def parse(self, text: str) -> bool:
        """True or False."""
        return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer in a range."""

    range: range

    @property
    def allowed(self) -> str:
        """The range's ends."""
        return f"an integer from {self.range.start} to {self.range.stop - 1}"

    def parse(self, text: str) -> int:
        """The number."""
        value = int(text)
        if value not in self.range:
            raise ValueError(text)
        return value


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, kept as it is written."""

    shortest: float
    allowed: str

    def parse(self, text: str) -> str:
        """The text itself."""
        if seconds(text) < self.shortest:
            raise ValueError(text)
        return text


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts, each of a pattern or one of some words."""

    allowed: str
    pattern: re.Pattern[str] | None = None
    words: tuple[str, ...] = ()

    def parse(self, text: str) -> list[str]:
        """The list."""
        value = json.loads(text)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(text)
        for item in value:
            if (self.pattern is not None and not self.pattern.fullmatch(item)) or (
                self.words and item not in self.words
            ):
                raise ValueError(item)
        return value


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of different integers in a range, with at least one."""

    range: range

    @property
    def allowed(self) -> str:
        """The range's ends."""
        return f"a list of different integers from {self.range.start} to {self.range.stop - 1}, like [1]"

    def parse(self, text: str) -> list[int]:
        """The list."""
        value = json.loads(text)
        if not isinstance(value, list) or not value or len({str(item) for item in value}) != len(value):
            raise ValueError(text)
        if not all(isinstance(item, int) and not isinstance(item, bool) and item in self.range for item in value):
            raise ValueError(text)
        return value


@dataclass(frozen=True, slots=True)
class Object:
    """Texts under some known names, each of a pattern if there is one."""

    names: tuple[str, ...]
    values: str
    pattern: re.Pattern[str] | None = None

    @property
    def allowed(self) -> str:
        """Names and values."""
        return f"an object with {self.values} under some of {', '.join(self.names)}"

    def parse(self, text: str) -> dict[str, str]:
        """The object."""
        value = json.loads(text)
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(text)
        for name, item in value.items():
            if name not in self.names:
                raise ValueError(name)
            if self.pattern is not None and not self.pattern.fullmatch(item):
                raise ValueError(item)
        return value


@dataclass(frozen=True, slots=True)
class Revisions:
    """Control planes by name."""

    allowed: str = (
        'an object of revisions, like {"canary": "0.2.0"} or {"canary": {"proxy": REFERENCE, "control": REFERENCE}}; '
        "a name has at most 20 lower-case letters, digits and dashes"
    )

    def parse(self, text: str) -> dict[str, str | dict[str, str]]:
        """A tag or two references by name."""
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(text)
        for name, item in value.items():
            if not _REVISION.fullmatch(name):
                raise ValueError(name)
            is_tag = isinstance(item, str) and _TAG.fullmatch(item)
            references = item.values() if isinstance(item, dict) and set(item) == set(REVISED) else ()
            if not is_tag and not (references and all(_is_reference(each) for each in references)):
                raise ValueError(json.dumps(item))
        return value


@dataclass(frozen=True, slots=True)
class Labels:
    """Kubernetes labels of one's own."""

    allowed: str = (
        'an object of Kubernetes labels, like {"team": "shop"}, and none of app, app.kubernetes.io/*, linkerd.io/* '
        "or tulle.io/*"
    )

    def parse(self, text: str) -> dict[str, str]:
        """The labels."""
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(text)
        for key, item in value.items():
            prefix, _, name = key.rpartition("/")
            taken = key == "app" or prefix in ("app.kubernetes.io", "linkerd.io", "tulle.io")
            good = _LABEL_TEXT.fullmatch(name) and (_DOMAIN.fullmatch(prefix) or "/" not in key) and len(prefix) < 254
            if taken or not good:
                raise ValueError(key)
            if not isinstance(item, str) or (item and not _LABEL_TEXT.fullmatch(item)):
                raise ValueError(str(item))
        return value


@dataclass(frozen=True, slots=True)
class Ports:
    """A port set as proxies read it, kept as it is written; empty for none."""

    allowed: str = "ports and port ranges with commas between, like 25,587,9000-9005, or empty"

    def parse(self, text: str) -> str:
        """The text itself."""
        for part in text.split(",") if text else ():
            ends = part.strip().split("-")
            good = len(ends) <= 2 and all(end.isascii() and end.isdigit() and 0 < int(end) < 65536 for end in ends)
            if not good or int(ends[0]) > int(ends[-1]):
                raise ValueError(text)
        return text


@dataclass(frozen=True, slots=True)
class Networks:
    """CIDR networks with commas between, kept as they are written."""

    allowed: str = "networks with commas between, like 10.0.0.0/8,fd00::/8"

    def parse(self, text: str) -> str:
        """The text itself."""
        for part in text.split(","):
            ipaddress.ip_network(part.strip())
        return text


_NAME: Final = Text(DNS_LABEL, LABEL)
_SECRET: Final = Text("the name of a Secret, or empty", re.compile(r"([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?"))
_DNS_NAME: Final = Text("a DNS name in lower case", _DOMAIN)
_AMOUNT: Final = Text("a quantity like 10m or 32Mi", _QUANTITY)
_SPAN: Final = Text("a duration like 10s, 6h or 15d", _PROMETHEUS_DURATION)

FORMS: Final[Mapping[str, Form]] = {
    "meshNamespace": _NAME,
    "trustNamespace": Text(f"{DNS_LABEL}, and another one than meshNamespace", LABEL),
    "trustDomain": _DNS_NAME,
    "clusterDomain": _DNS_NAME,
    "replicas": Number(range(1, 10)),
    "meshedNamespaces": Texts(
        f"a list of namespaces, each {DNS_LABEL}, and none of default, kube-system or the mesh's own", LABEL
    ),
    "adoptedNamespaces": Texts(
        f"a list of namespaces, each {DNS_LABEL}, and none of kube-system, the mesh's own or meshedNamespaces", LABEL
    ),
    "labels": Labels(),
    "images.registry": Text("a registry and path, like registry.example/tulle", re.compile(r"\S+")),
    "images.tag": Text("an image tag", _TAG),
    "images.digests": Object(IMAGES, "digests (sha256: and 64 hexadecimal digits)", _DIGEST),
    "images.refs": Object(IMAGES, "image references", _REFERENCE),
    "revisions": Revisions(),
    "images.pullPolicy": Choice(("Always", "IfNotPresent", "Never")),
    "images.pullSecret": _SECRET,
    "trust.protect": Flag(),
    "trust.anchors": Numbers(range(1, 100)),
    "trust.signer": Number(range(1, 100)),
    "trust.force": Flag(),
    "trust.issuerLifetime": Duration(SHORTEST_ISSUER, "a duration like 8760h, at least 10m"),
    "trust.issuerCertificate": Text("a PEM certificate, or empty"),
    "trust.issuerKey": Text("a PEM private key (ECDSA P-256, not encrypted), or empty"),
    "trust.issuerSecret": _SECRET,
    "trust.bundle": Text("PEM certificates, or empty"),
    "identity.leafLifetime": Duration(SHORTEST_LEAF, "a duration like 24h, at least 60s"),
    "externalWorkloads.kind": Flag(),
    "cni.enabled": Flag(),
    "proxy.inboundPolicy": Choice(labels.INBOUND_POLICIES),
    "proxy.opaquePorts": Ports(),
    "proxy.skipInboundPorts": Ports(),
    "proxy.skipOutboundPorts": Ports(),
    "proxy.clusterNetworks": Networks(),
    "proxy.sidecar": Choice(("auto", "native", "classic")),
    "proxy.ipv6": Flag(),
    "proxy.logLevel": Choice(("error", "warn", "info", "debug")),
    "proxy.logFormat": Choice(("plain", "json")),
    "proxy.metricsPlaintext": Flag(),
    "proxy.cpuRequest": _AMOUNT,
    "proxy.memoryRequest": _AMOUNT,
    "proxy.memoryLimit": Text("a quantity like 256Mi, at least proxy.memoryRequest", _QUANTITY),
    "proxy.allowedOverrides": Texts(
        f'a list of "*", or of {", ".join(KNOWN_OVERRIDES)}', words=("*", *KNOWN_OVERRIDES)
    ),
    "prometheus.enabled": Flag(),
    "prometheus.url": Text("an http(s) address, or empty", re.compile(r"(https?://\S+)?")),
    "prometheus.retention": _SPAN,
    "prometheus.scrapeInterval": Duration(1.0, "a duration like 10s, at least 1s"),
    "nodes.report": Text("the path of a report that the playbook `verify` wrote, or empty"),
    "nodes.maxAge": Duration(60.0, "a duration like 24h, at least 1m"),
    "nodes.required": Flag(),
    "upgrade.restart": Flag(),
    "upgrade.first": Texts(f"a list of namespaces, each {DNS_LABEL}", LABEL),
    "upgrade.percent": Number(range(1, 101)),
    "upgrade.pause": Duration(1.0, "a duration like 60s, at least 1s"),
    "upgrade.tolerance": Number(range(101)),
    "demo.enabled": Flag(),
    "demo.rate": Number(range(10_001)),
}
"""Every key of `Pulumi.yaml`."""


def seconds(duration: str) -> float:
    """A duration as a number; raises ValueError for what is none."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(ms|s|m|h|d)", duration)
    if match is None:
        raise ValueError(duration)
    return int(match[1]) * _UNITS[match[2]]


def amount(quantity: str) -> float:
    """A quantity as a number: CPUs or bytes."""
    scale = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
    digits = quantity.rstrip("mkKMGi")
    return float(digits) * scale.get(quantity[len(digits) :], 1.0)


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def _refuse(text: str) -> Any:
    raise ValueError(text)
