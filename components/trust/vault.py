"""I/O: the two Secrets with private keys, written straight to the cluster so that no key passes through a deployer's
state.

The anchor's is create-only: whoever finds one, keeps it. That is also how a run that was killed half-way is taken up.
"""

import datetime
from collections.abc import Mapping
from typing import Any

from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError
from components.deploy.refs import Manifest, Ref, Target
from components.trust import authority, objects
from components.trust.authority import AuthorityError, KeyPair
from proxy.api import labels


class Vault:
    """The Secrets of one mesh's authority."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        self._cluster = Cluster(Target(str(place["kubeconfig"]), str(place["context"])))

    def __enter__(self) -> "Vault":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.close()

    def ensure_anchor(
        self, namespace: str, name: str, mesh_namespace: str, trust_domain: str, now: datetime.datetime
    ) -> str:
        """An anchor's certificate; made now if there is none."""
        ref = Ref("v1", "Secret", namespace, name)
        found = self._cluster.get(ref)
        if found is None:
            made = authority.make_anchor(mesh_namespace, trust_domain, now)
            try:
                self._cluster.create(objects.anchor_secret(namespace, name, made))
                return made.certificate
            except ClusterError as error:
                if error.status != 409:
                    raise
                found = self._cluster.get(ref)
        certificate = _pair(found, ref).certificate
        authority.check_current(authority.load_certificate(certificate, str(ref)), str(ref), now)
        return certificate

    def anchor(self, namespace: str, name: str) -> KeyPair:
        """An anchor with its key, to sign an issuer with."""
        ref = Ref("v1", "Secret", namespace, name)
        found = self._cluster.get(ref)
        if found is None:
            raise DeployError(
                f"{ref} is gone, and with it the key that signs issuers",
                "Restore it from its backup, or bring your own issuer (trust.issuerCertificate, trust.issuerKey).",
            )
        return _pair(found, ref)

    def issuer_certificate(self, namespace: str) -> str:
        """The certificate of the issuer that identity uses now, or empty."""
        return objects.text(self._cluster.get(Ref("v1", "Secret", namespace, labels.ISSUER_SECRET)), "tls.crt")

    def write_issuer(self, namespace: str, issuer: KeyPair, bundle: str, anchor: str = "") -> None:
        """Give identity its issuer, in place of an earlier one."""
        self._cluster.apply(objects.issuer_secret(namespace, issuer, bundle, anchor), "tulle-trust")

    def remove(self, namespace: str, name: str) -> None:
        """Delete one of the two, if it is ours."""
        ref = Ref("v1", "Secret", namespace, name)
        found = self._cluster.get(ref)
        if found is not None and objects.is_ours(found):
            self._cluster.delete(ref, found["metadata"]["uid"])


def _pair(secret: Manifest | None, ref: Ref) -> KeyPair:
    if secret is None:
        raise DeployError(f"{ref} vanished while it was read", "Run again.")
    try:
        return objects.pair_of(secret)
    except AuthorityError as error:
        problem, _, way_out = str(error).rpartition(": ")
        raise DeployError(problem, f"{way_out[:1].upper()}{way_out[1:]}.") from None
