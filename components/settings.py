"""Stack config read once: pure. Texts as Pulumi gives them in, the mesh's typed settings out, or one error that names
the key, the value and what is allowed.

Types, defaults and sentences stand in `Pulumi.yaml`, what one key allows in `forms`; here is what several keys must
agree on. Components never read config themselves.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from components.args import ImageSettings, MeshSettings, ProxyDefaults
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from components.deploy.target import choose
from components.forms import FORMS, IMAGES, amount, seconds

PROJECT: Final = "tulle"
DEPLOYER: Final = "deployer"
"""A key that no stack sets: which way of deploying runs the program, where it is not the Pulumi CLI."""
RENDER: Final = "render"
SAMPLES: Final = 4
"""Scrapes that a rate needs at least to say something."""
LONGEST_SHOWN: Final = 120
"""Characters of a refused value that an error shows: a certificate in the wrong key must not fill a terminal."""


class SettingsError(DeployError):
    """A config value that cannot be used."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        shown = repr(value) if len(repr(value)) <= LONGEST_SHOWN else f"{repr(value)[:LONGEST_SHOWN]}…"
        super().__init__(
            f"config key {key} is {shown}, but must be {allowed}", f"Set it with -c {key}=... or in the stack's file."
        )


def read(raw: Mapping[str, str], stack: str, environment: Mapping[str, str]) -> MeshSettings:
    """The mesh's settings from a stack's complete config; raises DeployError for what cannot be used."""
    return parse(raw, choose(stack, raw, "", "", environment))


def parse(raw: Mapping[str, str], target: Target) -> MeshSettings:
    """The mesh's settings for one cluster; raises DeployError for what cannot be used."""
    given = values(raw)
    settings: MeshSettings = {
        "cluster": {"kubeconfig": target.kubeconfig, "context": target.context},
        "names": {
            "mesh_namespace": given["meshNamespace"],
            "trust_namespace": given["trustNamespace"],
            "trust_domain": given["trustDomain"],
            "cluster_domain": given["clusterDomain"],
        },
        "images": _images(given),
        "revisions": {name: _revised(given, name) for name in given["revisions"]},
        "replicas": given["replicas"],
        "cni": {"enabled": given["cni.enabled"]},
        "meshed_namespaces": given["meshedNamespaces"],
        "adopted_namespaces": given["adoptedNamespaces"],
        "labels": given["labels"],
        "leaf_lifetime": given["identity.leafLifetime"],
        "trust": {
            "protect": given["trust.protect"],
            "anchors": given["trust.anchors"],
            "signer": given["trust.signer"],
            "force": given["trust.force"],
            "issuer_lifetime": given["trust.issuerLifetime"],
            "issuer_certificate": given["trust.issuerCertificate"],
            "issuer_key": given["trust.issuerKey"],
            "issuer_secret": given["trust.issuerSecret"],
            "bundle": given["trust.bundle"],
        },
        "external_kind": given["externalWorkloads.kind"],
        "proxy": _proxy(given),
        "telemetry": {
            "enabled": given["prometheus.enabled"],
            "url": given["prometheus.url"],
            "retention": given["prometheus.retention"],
            "scrape_interval": given["prometheus.scrapeInterval"],
        },
        "nodes": {"report": given["nodes.report"], "max_age": given["nodes.maxAge"]},
        "upgrade": {
            "restart": given["upgrade.restart"],
            "first": given["upgrade.first"],
            "percent": given["upgrade.percent"],
            "pause": _pause(given),
            "tolerance": given["upgrade.tolerance"],
        },
        "demo": {"enabled": given["demo.enabled"], "rate": given["demo.rate"]},
        "rendered": raw.get(f"{PROJECT}:{DEPLOYER}") == RENDER,
    }
    _check_agreement(settings)
    if given["nodes.required"] and not settings["nodes"]["report"]:
        wanted = "the report of the playbook `verify`, as long as nodes.required is true"
        raise SettingsError("nodes.report", "", wanted)
    return settings


def values(raw: Mapping[str, str]) -> dict[str, Any]:
    """Each key's value, every one of them checked by its form."""
    texts = {key.removeprefix(f"{PROJECT}:"): text for key, text in raw.items() if key.startswith(f"{PROJECT}:")}
    texts.pop(DEPLOYER, None)
    unknown = sorted(set(texts) - set(FORMS))
    if unknown:
        raise DeployError(
            f"unknown config key {unknown[0]!r}", "`tulle config explain` lists all keys; remove it from the stack."
        )
    missing = sorted(set(FORMS) - set(texts))
    if missing:
        raise DeployError(
            f"config key {missing[0]} has no value", "Its default stands in Pulumi.yaml: run from a complete clone."
        )
    found: dict[str, Any] = {}
    for key, form in FORMS.items():
        try:
            found[key] = form.parse(texts[key])
        except ValueError as error:
            # Of a list, the one bad item; what a parser of the standard library says is about the whole text.
            culprit = str(error) if str(error) and str(error) in texts[key] else texts[key]
            raise SettingsError(key, culprit, form.allowed) from None
    return found


def _check_agreement(settings: MeshSettings) -> None:
    names, proxy = settings["names"], settings["proxy"]
    if names["mesh_namespace"] == names["trust_namespace"]:
        raise SettingsError("trustNamespace", names["trust_namespace"], FORMS["trustNamespace"].allowed)
    taken = {"kube-system", "default", names["mesh_namespace"], names["trust_namespace"]}
    for namespace in settings["meshed_namespaces"]:
        if namespace in taken:
            wanted = f"namespaces other than {', '.join(sorted(taken))}"
            raise SettingsError("meshedNamespaces", namespace, wanted)
    for namespace in settings["adopted_namespaces"]:
        if namespace in {*(taken - {"default"}), *settings["meshed_namespaces"]}:
            raise SettingsError("adoptedNamespaces", namespace, FORMS["adoptedNamespaces"].allowed)
    trust = settings["trust"]
    if trust["issuer_secret"] and trust["issuer_certificate"]:
        raise SettingsError("trust.issuerSecret", trust["issuer_secret"], "empty where trust.issuerCertificate is set")
    if trust["issuer_secret"] and not trust["bundle"].strip():
        raise SettingsError("trust.bundle", "", "the anchors behind trust.issuerSecret, as PEM certificates")
    if trust["signer"] not in trust["anchors"]:
        raise SettingsError("trust.signer", trust["signer"], f"one of trust.anchors ({trust['anchors']})")
    if amount(proxy["memory_limit"]) < amount(proxy["memory_request"]):
        wanted = f"at least proxy.memoryRequest ({proxy['memory_request']})"
        raise SettingsError("proxy.memoryLimit", proxy["memory_limit"], wanted)


def _pause(given: Mapping[str, Any]) -> int:
    """Seconds between two waves: time enough for the samples by which a wave is judged."""
    interval = given["prometheus.scrapeInterval"]
    scraped = SAMPLES * seconds(interval)
    return math.ceil(max(seconds(given["upgrade.pause"]), scraped))


def _images(given: Mapping[str, Any]) -> ImageSettings:
    registry, tag = given["images.registry"].rstrip("/"), given["images.tag"]
    digests, refs = given["images.digests"], given["images.refs"]
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
        "pull_policy": given["images.pullPolicy"],
        "pull_secret": given["images.pullSecret"],
    }


def _revised(given: Mapping[str, Any], name: str) -> ImageSettings:
    """The images of a revision: all else it shares with the mesh's own control plane."""
    chosen = given["revisions"][name]
    changed = {"images.tag": chosen, "images.digests": {}, "images.refs": {}} if isinstance(chosen, str) else {
        "images.refs": {**given["images.refs"], **chosen}
    }  # fmt: skip
    return _images({**given, **changed})


def _proxy(given: Mapping[str, Any]) -> ProxyDefaults:
    return {
        "inbound_policy": given["proxy.inboundPolicy"],
        "opaque_ports": given["proxy.opaquePorts"],
        "skip_inbound_ports": given["proxy.skipInboundPorts"],
        "skip_outbound_ports": given["proxy.skipOutboundPorts"],
        "cluster_networks": given["proxy.clusterNetworks"],
        "sidecar": given["proxy.sidecar"],
        "ipv6": given["proxy.ipv6"],
        "log_level": given["proxy.logLevel"],
        "log_format": given["proxy.logFormat"],
        "metrics_plaintext": given["proxy.metricsPlaintext"],
        "cpu_request": given["proxy.cpuRequest"],
        "memory_request": given["proxy.memoryRequest"],
        "memory_limit": given["proxy.memoryLimit"],
        "allowed_overrides": given["proxy.allowedOverrides"],
    }
