"""Pure: the Kubernetes objects of trust as values: the two Secrets with keys and the public bundle, written and read.

Whoever writes them (the deployer's vault, the keeper in the cluster) writes the same.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from components.trust.authority import AuthorityError, KeyPair
from proxy.api import labels

OWNER: Final = {labels.PART_OF: "tulle", labels.COMPONENT: "trust", labels.MANAGED_BY: "tulle"}
SIGNED_WITH: Final = "tulle.io/signed-with"
TLS_SECRET: Final = "kubernetes.io/tls"  # noqa: S105  a type, not a password


def anchor_name(number: int) -> str:
    """The Secret of the mesh's nth anchor; the first one's name has no number."""
    return labels.ANCHOR_SECRET if number == 1 else f"{labels.ANCHOR_SECRET}-{number}"


def anchor_secret(namespace: str, name: str, anchor: KeyPair) -> dict[str, Any]:
    """The Secret of an anchor."""
    return _secret(namespace, name, {"tls.crt": anchor.certificate, "tls.key": anchor.key})


def issuer_secret(namespace: str, issuer: KeyPair, bundle: str, anchor: str = "") -> dict[str, Any]:
    """The Secret that identity mounts; `anchor` names the Secret with the key that signed it, if it is ours."""
    data = {"tls.crt": issuer.certificate, "tls.key": issuer.key, "ca.crt": bundle}
    made = _secret(namespace, labels.ISSUER_SECRET, data)
    if anchor:
        made["metadata"]["annotations"] = {SIGNED_WITH: anchor}
    return made


def signed_with(issuer: Mapping[str, Any]) -> str:
    """The name of the Secret with the key that signed an issuer. The keeper reads it here, so that it need not be
    started anew when another anchor signs."""
    return str((issuer["metadata"].get("annotations") or {}).get(SIGNED_WITH) or labels.ANCHOR_SECRET)


def bundle_map(namespace: str, bundle: str) -> dict[str, Any]:
    """The ConfigMap from which the injector keeps the copies."""
    metadata = {"name": labels.BUNDLE_CONFIG_MAP, "namespace": namespace, "labels": dict(OWNER)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {labels.BUNDLE_KEY: bundle}}


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether Tulle made an object of trust."""
    return bool((found["metadata"].get("labels") or {}).get(labels.COMPONENT) == "trust")


def pair_of(secret: Mapping[str, Any]) -> KeyPair:
    """Certificate and key of a Secret; raises AuthorityError for one that is not ours or not whole."""
    certificate, key = text(secret, "tls.crt"), text(secret, "tls.key")
    if not certificate or not key or not is_ours(secret):
        metadata = secret["metadata"]
        where = f"Secret {metadata.get('namespace', '')}/{metadata['name']}"
        raise AuthorityError(f"{where} exists, but is none that Tulle made: delete it or set another trustNamespace")
    return KeyPair(certificate, key)


def text(secret: Mapping[str, Any] | None, key: str) -> str:
    """One text of a Secret; empty where there is none."""
    try:
        return base64.b64decode(((secret or {}).get("data") or {}).get(key, "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _secret(namespace: str, name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
    metadata = {"name": name, "namespace": namespace, "labels": dict(OWNER)}
    return {"apiVersion": "v1", "kind": "Secret", "type": TLS_SECRET, "metadata": metadata, "data": data}
