"""Identity names: pure. What a workload is called on the wire, and where that name is written down.

The form is Linkerd's (`<sa>.<ns>.serviceaccount.identity.<mesh-ns>.<trust-domain>`), so that dashboards and policies
carry over;
the SPIFFE ID beside it follows the SPIFFE-ID standard, section 2.
"""

import re
from dataclasses import dataclass
from typing import Final

SERVICE_ACCOUNT: Final = "serviceaccount"
MAX_DNS_NAME: Final = 253
"""RFC 1035 section 2.3.4: a certificate's dNSName longer than this is refused by every verifier."""
_LABEL: Final = r"[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class InvalidNameError(ValueError):
    """A name that is not a workload identity; the message names the part at fault."""


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """Who a workload is: the service account it runs as, in its namespace, in its mesh."""

    service_account: str
    namespace: str
    mesh_namespace: str
    trust_domain: str

    @property
    def dns_name(self) -> str:
        """The name in the leaf's dNSName SAN, and the SNI that peers ask for."""
        return (
            f"{self.service_account}.{self.namespace}.{SERVICE_ACCOUNT}.identity."
            f"{self.mesh_namespace}.{self.trust_domain}"
        )

    @property
    def spiffe_id(self) -> str:
        """The URI SAN of the same leaf."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def workload_identity(
    service_account: str, namespace: str, mesh_namespace: str, trust_domain: str
) -> WorkloadIdentity:
    """Build an identity from its parts; raises InvalidNameError for a part that is no DNS name, and for a name no
    certificate can carry."""
    for field, value in (
        ("service account", service_account),
        ("namespace", namespace),
        ("mesh namespace", mesh_namespace),
        ("trust domain", trust_domain),
    ):
        if not _NAME.fullmatch(value):
            raise InvalidNameError(f"{field} {value!r} is not a lower-case DNS name")
    if "." in namespace:
        # RFC 1123 labels have none; with one, a name would also be that of another account in another namespace.
        raise InvalidNameError(f"namespace {namespace!r} has a dot")
    identity = WorkloadIdentity(service_account, namespace, mesh_namespace, trust_domain)
    if len(identity.dns_name) > MAX_DNS_NAME:
        raise InvalidNameError(f"identity {identity.dns_name!r} is longer than {MAX_DNS_NAME} characters")
    return identity


def parse_dns_name(name: str, mesh_namespace: str, trust_domain: str) -> WorkloadIdentity:
    """Read an identity back from its DNS form; raises InvalidNameError if it is not one of this mesh.

    A service account may contain dots (it is a DNS subdomain), a namespace may not (RFC 1123 label).
    """
    suffix = f".{SERVICE_ACCOUNT}.identity.{mesh_namespace}.{trust_domain}"
    if not name.endswith(suffix):
        raise InvalidNameError(f"{name!r} does not end in {suffix!r}")
    service_account, _, namespace = name[: -len(suffix)].rpartition(".")
    return workload_identity(service_account, namespace, mesh_namespace, trust_domain)


def token_audience(mesh_namespace: str, trust_domain: str) -> str:
    """The audience a service-account token must carry to be exchanged for a certificate."""
    return f"identity.{mesh_namespace}.{trust_domain}"
