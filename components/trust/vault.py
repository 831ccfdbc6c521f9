"""I/O: the two Secrets with private keys, written straight to the cluster so that no key passes through a deployer's
state.

The anchor's is create-only: whoever finds one, keeps it. That is also how a run that was killed half-way is taken up.
"""

import base64
import datetime
from collections.abc import Mapping
from typing import Any, Final

from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError
from components.deploy.refs import Manifest, Ref, Target
from components.trust import authority
from components.trust.authority import KeyPair
from proxy.api import labels

OWNER: Final = {labels.PART_OF: "tulle", labels.COMPONENT: "trust", labels.MANAGED_BY: "tulle"}
TLS_SECRET: Final = "kubernetes.io/tls"  # noqa: S105  a type, not a password


class Vault:
    """The Secrets of one mesh's authority."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        self._cluster = Cluster(Target(str(place["kubeconfig"]), str(place["context"])))

    def __enter__(self) -> "Vault":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.close()

    def ensure_anchor(self, namespace: str, mesh_namespace: str, trust_domain: str, now: datetime.datetime) -> str:
        """The anchor's certificate; made now if there is none."""
        ref = Ref("v1", "Secret", namespace, labels.ANCHOR_SECRET)
        found = self._cluster.get(ref)
        if found is None:
            made = authority.make_anchor(mesh_namespace, trust_domain, now)
            try:
                self._cluster.create(_secret(ref, {"tls.crt": made.certificate, "tls.key": made.key}))
                return made.certificate
            except ClusterError as error:
                if error.status != 409:
                    raise
                found = self._cluster.get(ref)
        certificate = _pair(found, ref).certificate
        authority.check_current(authority.load_certificate(certificate, str(ref)), str(ref), now)
        return certificate

    def anchor(self, namespace: str) -> KeyPair:
        """The anchor with its key, to sign an issuer with."""
        ref = Ref("v1", "Secret", namespace, labels.ANCHOR_SECRET)
        found = self._cluster.get(ref)
        if found is None:
            raise DeployError(
                f"{ref} is gone, and with it the key that signs issuers",
                "Restore it from its backup, or bring your own issuer (trust.issuerCertificate, trust.issuerKey).",
            )
        return _pair(found, ref)

    def issuer_certificate(self, namespace: str) -> str:
        """The certificate of the issuer that identity uses now, or empty."""
        found = self._cluster.get(Ref("v1", "Secret", namespace, labels.ISSUER_SECRET))
        return _text(found, "tls.crt") if found else ""

    def write_issuer(self, namespace: str, issuer: KeyPair, bundle: str) -> None:
        """Give identity its issuer, in place of an earlier one."""
        ref = Ref("v1", "Secret", namespace, labels.ISSUER_SECRET)
        secret = _secret(ref, {"tls.crt": issuer.certificate, "tls.key": issuer.key, "ca.crt": bundle})
        self._cluster.apply(secret, "tulle-trust")

    def remove(self, namespace: str, name: str) -> None:
        """Delete one of the two, if it is ours."""
        ref = Ref("v1", "Secret", namespace, name)
        found = self._cluster.get(ref)
        if found is not None and (found["metadata"].get("labels") or {}).get(labels.COMPONENT) == "trust":
            self._cluster.delete(ref, found["metadata"]["uid"])


def _secret(ref: Ref, texts: Mapping[str, str]) -> Manifest:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": ref.name, "namespace": ref.namespace, "labels": dict(OWNER)}
    return {"apiVersion": "v1", "kind": "Secret", "type": TLS_SECRET, "metadata": metadata, "data": data}


def _pair(secret: Manifest | None, ref: Ref) -> KeyPair:
    certificate, key = _text(secret, "tls.crt"), _text(secret, "tls.key")
    if not certificate or not key or (secret or {})["metadata"].get("labels", {}).get(labels.COMPONENT) != "trust":
        raise DeployError(f"{ref} exists, but is no anchor that Tulle made", "Delete it or set another trustNamespace.")
    return KeyPair(certificate, key)


def _text(secret: Manifest | None, key: str) -> str:
    return base64.b64decode(((secret or {}).get("data") or {}).get(key, "")).decode()
