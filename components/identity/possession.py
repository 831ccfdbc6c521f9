"""What a leaf and a request signed with its key prove: pure. That whoever asks has the key of a certificate which this
mesh gave out and which is still good.
"""

import datetime
import itertools
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from components.identity.authority import MAX_CHAIN, SKEW, IssuerError, check_authority, issued_by
from proxy.api.names import WorkloadIdentity

MAX_LEAF: Final = 8 * 1024
"""Bytes of one certificate that are parsed for a caller."""


class LeafError(ValueError):
    """The leaf proves nothing; `reason` is a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_leaf(
    chain: Sequence[bytes],
    key: ec.EllipticCurvePublicKey,
    identity: WorkloadIdentity,
    bundle: bytes,
    now: datetime.datetime,
) -> None:
    """Raise LeafError unless the chain (DER, leaf first) leads to the bundle, is valid, and of this identity and key.

    The request was signed with the key, so its sender has it: what a TLS handshake would prove of the connection, this
    proves of the request, whichever proxies it came through.
    """
    if len(chain) > MAX_CHAIN or any(len(each) > MAX_LEAF for each in chain):
        raise LeafError("too_long", f"at most {MAX_CHAIN} certificates of {MAX_LEAF} bytes are read")
    try:
        path = [x509.load_der_x509_certificate(each) for each in chain]
        anchors = x509.load_pem_x509_certificates(bundle)
        names = path[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        named = names.get_values_for_type(x509.DNSName)
        public = path[0].public_key()
    except Exception as error:
        # The parser has a dozen ways to refuse what a caller made up, and all of them are the caller's fault.
        raise LeafError("unreadable", f"the certificate to renew cannot be read: {error}") from None
    if named != [identity.dns_name]:
        raise LeafError("name", f"the certificate to renew is of {', '.join(named)!r}, not of {identity.dns_name!r}")
    if public != key:
        raise LeafError("key", "the certificate to renew is of another key than the request")
    if not path[0].not_valid_before_utc - SKEW <= now < path[0].not_valid_after_utc:
        end = path[0].not_valid_after_utc.isoformat()
        raise LeafError("expired", f"the certificate to renew expired at {end}; join again with a new token")
    for child, parent in itertools.pairwise(path):
        try:
            check_authority(parent, now)
        except IssuerError as error:
            raise LeafError("chain", str(error)) from None
        if not issued_by(child, parent):
            raise LeafError("chain", "the certificates to renew are not signed by each other, leaf first")
    signers = [anchor for anchor in anchors if issued_by(path[-1], anchor)]
    if not any(anchor.not_valid_before_utc - SKEW <= now < anchor.not_valid_after_utc for anchor in signers):
        raise LeafError("not_trusted", "the certificate to renew leads to no anchor of this mesh")
