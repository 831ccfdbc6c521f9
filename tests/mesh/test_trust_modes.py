"""Every way to give a mesh its trust: the stack is deployed with it, what identity would mount is handed to a real
identity, and real proxies are certified by it and speak to each other.
"""

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from components.deploy.deployment import Deployment
from components.trust.authority import KeyPair
from proxy.api import labels
from tests.iac.rest import RestApi, serving, unguarded
from tests.kit.certificates import Signer, ca
from tests.kit.lines import App
from tests.kit.peers import ask
from tests.kit.topology import Mesh
from tests.kit.waiting import until

PORT = 8080
PEM = serialization.Encoding.PEM
TWO_DAYS = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Mode:
    """Settings of the stack, and the Secret that somebody else keeps in the mesh namespace, if there is one."""

    settings: dict[str, str] = field(default_factory=dict)
    secret: dict[str, str] = field(default_factory=dict)


def pem(*certificates: x509.Certificate) -> str:
    return b"".join(each.public_bytes(PEM) for each in certificates).decode()


def key(signer: Signer, form: str) -> str:
    """A private key as PKCS8 or, as cert-manager writes it, SEC1."""
    shape = serialization.PrivateFormat.PKCS8 if form == "PKCS8" else serialization.PrivateFormat.TraditionalOpenSSL
    return signer.key.private_bytes(PEM, shape, serialization.NoEncryption()).decode()


def brought(signer: Signer, bundle: Signer) -> Mode:
    return Mode({
        "trust.issuerCertificate": pem(*signer.path), "trust.issuerKey": key(signer, "PKCS8"),
        "trust.bundle": pem(bundle.certificate),
    })  # fmt: skip


def own() -> Mode:
    """The mesh makes anchor and issuer."""
    return Mode()


def company() -> Mode:
    """An issuer directly below a company's root, which has an RSA key as old ones have."""
    root = ca("company root", key="RSA-2048")
    return brought(ca("mesh issuer", root, length=0), root)


def company_below() -> Mode:
    """An issuer two CAs below the root: what is between comes with the issuer, the root's key never does."""
    root = ca("company root")
    return brought(ca("mesh issuer", ca("regional", ca("division", root)), length=0), root)


def intermediate_only() -> Mode:
    """One CA of a company is trusted, and not its root: what else the root has signed is no peer."""
    middle = ca("for meshes", ca("company root"))
    return brought(replace(ca("mesh issuer", middle, length=0), above=()), middle)


def cert_manager() -> Mode:
    """A Secret as cert-manager keeps it, for two days at a time."""
    root = ca("root")
    issuer = ca("identity.tulle.cluster.local", ca("intermediate", root), length=0, ends=TWO_DAYS)
    texts = {"tls.crt": pem(*issuer.path), "tls.key": key(issuer, "SEC1"), "ca.crt": pem(root.certificate)}
    return Mode({"trust.issuerSecret": "mesh-issuer", "trust.bundle": pem(root.certificate)}, texts)


def up(folder: Path, mode: Mode) -> tuple[dict[str, str], str]:
    """Deploy the stack; the files of the issuer that identity's Deployment mounts, and the bundle that it publishes."""
    with serving(folder) as (api, target):
        if mode.secret:
            api.put("secrets", secret("mesh-issuer", mode.secret), labels.MESH_NAMESPACE)
        found = unguarded(folder)
        values = {"demo.enabled": "false", "prometheus.enabled": "false", **mode.settings}
        deployment = Deployment(found, "local", found.config("local", values), target)
        try:
            deployment.up()
        finally:
            deployment.close()
        mounted = issuer_of(api)
        config_map = api.get("configmaps", labels.BUNDLE_CONFIG_MAP, labels.MESH_NAMESPACE)
        assert config_map is not None
        writes = json.dumps([body for (kind, *_), body in api.objects.items() if kind != "secrets"])
    body = mounted["tls.key"].splitlines()[1]
    assert body not in writes, "a private key is outside of its Secret"
    return mounted, config_map["data"][labels.BUNDLE_KEY]


def secret(name: str, texts: dict[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": name, "namespace": labels.MESH_NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def issuer_of(api: RestApi) -> dict[str, str]:
    """What the kubelet would mount for identity as its issuer."""
    deployment = api.get("deployments", "identity", labels.MESH_NAMESPACE)
    assert deployment is not None
    (volume,) = [each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "issuer"]
    found = api.get("secrets", volume["secret"]["secretName"], labels.MESH_NAMESPACE)
    assert found is not None, f"identity mounts Secret {volume['secret']['secretName']}, which nobody has made"
    return {key: base64.b64decode(text).decode() for key, text in found["data"].items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [own, company, company_below, intermediate_only, cert_manager])
def test_a_mesh_comes_up_with_it(mesh: Mesh, tmp_path: Path, make: Callable[[], Mode]) -> None:
    issuer, bundle = up(tmp_path, make())
    made = Mesh()
    made.anchor, made.issuer = KeyPair(bundle, ""), KeyPair(issuer["tls.crt"], issuer["tls.key"])
    with made:
        caller, called = made.pod("caller"), made.pod("called")
        address = made.service("called", 80, [called], target=PORT)
        with App(called, PORT):
            until("a request", lambda: caller.get(address).status == 200, 30)
            tls = caller.proxy.samples("request_total")
            assert any(found.get("tls") == "true" for found, _ in tls), tls
            shown = made.pod("outside", meshed=False).namespace.within(
                lambda: ask((called.ip, PORT), called.identity, None)
            )
        assert shown.peer is not None
        leaf = x509.load_der_x509_certificate(shown.peer)
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(issuer["tls.crt"].encode()))
