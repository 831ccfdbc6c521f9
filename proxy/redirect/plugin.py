"""What a CNI plugin has to do for one pod: pure. Environment and configuration of a call in, a decision out. Runs
nothing; `cni` does.

The plugin is chained behind a network's own (CNI specification 1.1, section 3): it changes nothing of the result it is
handed. Which pods it acts on is the injector's decision, written as an annotation that the runtime hands over
(capability `io.kubernetes.cri.pod-annotations` of containerd and CRI-O). So it reads no API, and needs no credential.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.api import labels
from proxy.redirect.arguments import ArgumentsError, from_annotation
from proxy.redirect.rules import Redirection

TYPE: Final = "tulle-cni"
"""Name of the program in the runtime's folder of plugins, and `type` in a network's configuration."""
ANNOTATIONS: Final = "io.kubernetes.cri.pod-annotations"
ENTRY: Final[Mapping[str, Any]] = {"type": TYPE, "capabilities": {ANNOTATIONS: True}}
"""What a network's list of plugins says of this one."""
VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Of the CNI specification: chaining came with 0.3.0."""

INCOMPATIBLE_VERSION: Final = 1
BAD_ENVIRONMENT: Final = 4
NOT_READABLE: Final = 6
BAD_CONFIGURATION: Final = 7
NOT_REDIRECTED: Final = 100
"""Codes of the specification; from 100 on they are the plugin's own."""

Json = dict[str, Any]


class PluginError(Exception):
    """Why a call fails, as the runtime is told it and the kubelet writes it into an Event of the pod."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    def document(self, version: str) -> Json:
        """The error object of the specification."""
        found = {"cniVersion": version, "code": self.code, "msg": f"{TYPE}: {self}"}
        return {**found, "details": self.details} if self.details else found


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to do but to print."""

    output: Json | None


@dataclass(frozen=True, slots=True)
class Redirect:
    """The pod in a network namespace is to be redirected, or to be found redirected (`check`)."""

    redirection: Redirection
    mode: str
    netns: str
    ipv6: bool
    """Whether the network has given it an IPv6 address."""
    check: bool
    output: Json | None


def decide(environ: Mapping[str, str], text: bytes) -> Nothing | Redirect:
    """What one call asks for; raises PluginError."""
    command = environ.get("CNI_COMMAND", "")
    config = parse(text)
    version = version_of(config)
    if command == "VERSION":
        return Nothing({"cniVersion": version, "supportedVersions": list(VERSIONS)})
    if version not in VERSIONS:
        raise PluginError(
            INCOMPATIBLE_VERSION, f"cniVersion {version!r} is not supported", f"supported: {', '.join(VERSIONS)}"
        )
    if command in ("DEL", "GC", "STATUS"):
        # The rules go with the pod's network namespace, and a node without them serves pods that have no proxy.
        return Nothing(None)
    if command not in ("ADD", "CHECK"):
        raise PluginError(BAD_ENVIRONMENT, f"CNI_COMMAND is {command!r}, which the specification does not know")
    previous = config.get("prevResult")
    if not isinstance(previous, dict):
        raise PluginError(
            BAD_CONFIGURATION, "prevResult is missing: the plugin has to come after the network's own", "see `plugins`"
        )
    output = previous if command == "ADD" else None
    value = annotations_of(config).get(labels.REDIRECT)
    if value is None:
        return Nothing(output)
    netns = environ.get("CNI_NETNS", "")
    if not netns:
        raise PluginError(BAD_ENVIRONMENT, "CNI_NETNS is empty: the pod has no network namespace of its own")
    try:
        redirection, mode = from_annotation(value)
    except ArgumentsError as error:
        raise PluginError(
            BAD_CONFIGURATION, f"annotation {labels.REDIRECT}: {error}", "it is the injector's: create the pod anew"
        ) from error
    return Redirect(redirection, mode, netns, has_ipv6(previous), command == "CHECK", output)


def parse(text: bytes) -> Json:
    """The configuration on standard input; raises PluginError."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise PluginError(NOT_READABLE, f"the configuration on standard input is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise PluginError(NOT_READABLE, "the configuration on standard input is not a JSON object")
    return config


def version_of(config: Mapping[str, Any]) -> str:
    """The version of the specification that a configuration is written in."""
    return str(config.get("cniVersion") or "0.1.0")


def annotations_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The pod's annotations, as the runtime hands them over; empty from a runtime that does not."""
    runtime = config.get("runtimeConfig")
    found = runtime.get(ANNOTATIONS) if isinstance(runtime, dict) else None
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def has_ipv6(result: Mapping[str, Any]) -> bool:
    """Whether a network's result has an IPv6 address."""
    addresses = [each.get("address") for each in result.get("ips") or () if isinstance(each, dict)]
    return any(":" in str(address) for address in addresses)
