"""I/O: what of trust is live in a cluster, for the guard of a rotation."""

from collections.abc import Mapping
from typing import Any

from components.deploy.cluster import Cluster
from components.deploy.refs import Manifest, Ref
from components.trust import authority, objects, reports
from components.trust.authority import AuthorityError
from components.trust.reports import Report
from components.trust.rotation import Pod, Trust
from proxy.api import labels

RUNNING = ("initContainerStatuses", "containerStatuses")


def live_trust(cluster: Cluster, namespace: str) -> tuple[Trust, str]:
    """Anchors and signer as they are, and the digest of the bundle."""
    found = cluster.get(Ref("v1", "ConfigMap", namespace, labels.BUNDLE_CONFIG_MAP))
    bundle = str(((found or {}).get("data") or {}).get(labels.BUNDLE_KEY, ""))
    issuer = objects.text(cluster.get(Ref("v1", "Secret", namespace, labels.ISSUER_SECRET)), "tls.crt")
    return trust_of(bundle, issuer), reports.digest(bundle)


def trust_of(bundle: str, issuer: str) -> Trust:
    """The anchors of a bundle, and which of them signed an issuer; what cannot be read is nothing that is trusted."""
    try:
        anchors = authority.load_bundle(bundle) if bundle else []
        certificate = authority.load_certificate(issuer, "the issuer") if issuer else None
    except AuthorityError:
        return Trust(frozenset(), "")
    signers = [each for each in anchors if certificate is not None and authority.signed_by(certificate, each)]
    return Trust(
        frozenset(authority.identity_of(each) for each in anchors),
        authority.identity_of(signers[0]) if signers else "",
    )


def running_pods(cluster: Cluster, namespace: str) -> list[Pod]:
    """Every meshed pod whose proxy runs, as the API server knows it."""
    selector = f"{labels.CONTROL_PLANE_NAMESPACE}={namespace}"
    return [
        Pod(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", pod["metadata"]["uid"])
        for pod in cluster.list("v1", "Pod", "", selector)
        if _runs(pod)
    ]


def reported(cluster: Cluster, namespace: str) -> dict[str, Report]:
    """What pods have reported."""
    return reports.decode(cluster.get(Ref("v1", "ConfigMap", namespace, reports.NAME)))


def _runs(pod: Manifest) -> bool:
    status: Mapping[str, Any] = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return False
    statuses = [each for group in RUNNING for each in status.get(group) or ()]
    proxy = [each for each in statuses if each.get("name") == labels.PROXY_CONTAINER]
    # A pod whose proxy has not started yet will start with what is live then.
    return any("running" in (each.get("state") or {}) for each in proxy)
