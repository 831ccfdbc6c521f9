"""The certificate authority: pure. An issuer, a CSR and who the token says the caller is in; a leaf and its chain out,
or a named error.

No clock, no files, no randomness: all of it is handed in. Every name in a leaf is written here, from the token; of the
CSR only the public key is used.
"""

import datetime
import itertools
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.api.names import WorkloadIdentity

SKEW: Final = datetime.timedelta(seconds=20)
"""Allowed either side of a leaf's life, for nodes whose clocks differ (Linkerd's value)."""
MIN_LIFETIME: Final = datetime.timedelta(seconds=60)
"""Shorter leaves would be renewed faster than the proxy's minimal refresh interval of 10 s allows for."""
MAX_CSR: Final = 8 * 1024
"""Bounds what is parsed for a caller; an ECDSA P-256 CSR is under 1 KB."""
MAX_CHAIN: Final = 8
"""Certificates in an issuer's chain; more is a mistake, and every handshake would carry them."""


class CSRError(ValueError):
    """The CSR is malformed or of a kind that is not signed (INVALID_ARGUMENT)."""


class NameMismatchError(ValueError):
    """The caller asks for a name that is not its token's (PERMISSION_DENIED)."""


class IssuerError(ValueError):
    """The issuer cannot be used; the message says which file and why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Issuer:
    """A signing key with its certificate chain, checked against the trust bundle."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    """The issuer's own certificate first, then intermediates up to, but without, the anchor."""
    anchor: str = ""
    """SHA-256 of the anchor that it leads to; of several with one key, the one that lasts longest."""

    @property
    def certificate(self) -> x509.Certificate:
        """The issuer's own certificate."""
        return self.chain[0]

    @property
    def not_after(self) -> datetime.datetime:
        """When the first certificate of the chain expires: no leaf is of use after it."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)

    def __repr__(self) -> str:
        return f"Issuer({self.certificate.subject.rfc4514_string()}, not after {self.not_after.isoformat()})"


@dataclass(frozen=True, slots=True)
class Issued:
    """A leaf as it goes on the wire."""

    leaf: bytes
    intermediates: tuple[bytes, ...]
    not_after: datetime.datetime
    serial: int


def anchors_of(bundle: bytes) -> list[tuple[str, datetime.datetime]]:
    """Short fingerprint and end of each anchor; raises IssuerError for what is no bundle."""
    return [
        (each.fingerprint(hashes.SHA256()).hex()[:12], each.not_valid_after_utc)
        for each in _certificates(bundle, "the trust bundle")
    ]


def load_issuer(certificate: bytes, key: bytes, bundle: bytes, now: datetime.datetime) -> Issuer:
    """Read and check PEM files: that they belong together, lead to the trust bundle and are valid now; raises
    IssuerError.
    """
    chain = _certificates(certificate, "tls.crt")
    anchors = _certificates(bundle, "the trust bundle")
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IssuerError("key_unreadable", "tls.key is not an unencrypted PEM private key") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise IssuerError("key_unsupported", "tls.key is not an ECDSA key; the issuer must have a P-256 or P-384 key")
    if not isinstance(private.curve, ec.SECP256R1 | ec.SECP384R1):
        raise IssuerError("key_unsupported", f"tls.key is on curve {private.curve.name}; allowed: P-256, P-384")
    own = chain[0]
    if own.public_key() != private.public_key():
        raise IssuerError(
            "key_mismatch",
            f"tls.key is not the key of tls.crt ({own.subject.rfc4514_string()}); put the pair in together",
        )
    trusted = {anchor.fingerprint(hashes.SHA256()) for anchor in anchors}
    # Anchors are known to every proxy; sending one along would only make each handshake longer.
    path = [each for each in chain if each.fingerprint(hashes.SHA256()) not in trusted] or [own]
    for link in path:
        check_authority(link, now)
    for child, parent in itertools.pairwise(path):
        if not issued_by(child, parent):
            raise IssuerError(
                "chain_broken",
                f"tls.crt: {child.subject.rfc4514_string()!r} is not signed by {parent.subject.rfc4514_string()!r}, "
                "which follows it; order the chain issuer first",
            )
    last = path[-1]
    signers = [anchor for anchor in anchors if anchor == last or issued_by(last, anchor)]
    if not signers:
        raise IssuerError(
            "not_trusted",
            f"tls.crt: {last.subject.rfc4514_string()!r} is signed by no anchor of the trust bundle; "
            "put its anchor into the bundle first, then change the issuer",
        )
    if all(anchor.not_valid_after_utc <= now for anchor in signers):
        raise IssuerError(
            "anchor_expired", f"the anchor of {last.subject.rfc4514_string()!r} has expired; rotate the anchor"
        )
    anchor = max(signers, key=lambda each: each.not_valid_after_utc)
    return Issuer(private, tuple(path), anchor.fingerprint(hashes.SHA256()).hex())


def public_key_of(csr: bytes, identity: WorkloadIdentity) -> ec.EllipticCurvePublicKey:
    """The key to certify; raises CSRError, or NameMismatchError when the CSR names anybody but `identity`."""
    if len(csr) > MAX_CSR:
        raise CSRError(f"the CSR is {len(csr)} bytes long; at most {MAX_CSR} are read")
    try:
        request = x509.load_der_x509_csr(csr)
        signed = request.is_signature_valid
        key = request.public_key()
        names = _names(request)
    except Exception as error:
        # The parser has a dozen ways to refuse what a caller made up, and all of them are the caller's fault.
        raise CSRError(f"the CSR cannot be read: {error}") from None
    if not signed:
        raise CSRError("the CSR is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CSRError("the CSR's key is not ECDSA P-256, the only kind that is certified")
    for name in names:
        if name not in (identity.dns_name, identity.spiffe_id):
            raise NameMismatchError(f"the CSR names {name!r}, but the token is of {identity.dns_name!r}")
    return key


def issue(
    issuer: Issuer,
    key: ec.EllipticCurvePublicKey,
    identity: WorkloadIdentity,
    *,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
    serial: int,
) -> Issued:
    """Sign a leaf; raises IssuerError when the issuer itself is about to expire."""
    not_after = min(now + lifetime + SKEW, issuer.not_after).replace(microsecond=0)
    if not_after - now <= SKEW:
        raise IssuerError("expired", f"the issuer expires at {issuer.not_after.isoformat()}; give identity a new one")
    own = issuer.certificate
    builder = (
        x509.CertificateBuilder()
        # No subject: the names are in the SAN alone, which is critical then (RFC 5280 section 4.2.1.6).
        .subject_name(x509.Name([]))
        .issuer_name(own.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before((now - SKEW).replace(microsecond=0))
        .not_valid_after(not_after)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(identity.dns_name), x509.UniformResourceIdentifier(identity.spiffe_id)]
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # SPIFFE X509-SVID section 4.3: digitalSignature, and never keyCertSign or cRLSign.
        .add_extension(_usage(), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_key(own), critical=False)
    )
    algorithm = hashes.SHA384() if isinstance(issuer.key.curve, ec.SECP384R1) else hashes.SHA256()
    leaf = builder.sign(issuer.key, algorithm)
    der = serialization.Encoding.DER
    return Issued(
        leaf.public_bytes(der), tuple(each.public_bytes(der) for each in issuer.chain), leaf.not_valid_after_utc, serial
    )


def _certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):
        raise IssuerError("certificate_unreadable", f"{where} holds no readable PEM certificate") from None
    if where == "tls.crt" and len(found) > MAX_CHAIN:
        raise IssuerError("chain_too_long", f"{where} holds {len(found)} certificates; at most {MAX_CHAIN}")
    return found


def check_authority(certificate: x509.Certificate, now: datetime.datetime) -> None:
    """Raise IssuerError unless this is a CA certificate that may sign, and is valid now."""
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc <= now:
        when = certificate.not_valid_after_utc.isoformat()
        raise IssuerError("expired", f"tls.crt: {name!r} expired at {when}; give identity a new issuer")
    if certificate.not_valid_before_utc > now + SKEW:
        when = certificate.not_valid_before_utc.isoformat()
        raise IssuerError("not_yet_valid", f"tls.crt: {name!r} is not valid before {when}; check the clocks")
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        basic = x509.BasicConstraints(ca=False, path_length=None)
    if not basic.ca:
        raise IssuerError("not_an_authority", f"tls.crt: {name!r} is not a CA certificate (basicConstraints cA)")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise IssuerError("not_an_authority", f"tls.crt: {name!r} may not sign certificates (keyUsage keyCertSign)")


def issued_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether `parent` signed `child`; says nothing of what either may do."""
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _names(request: x509.CertificateSigningRequest) -> list[str]:
    """Every name in the CSR, of whatever kind."""
    found = [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    found += [attribute.rfc4514_string() for attribute in request.subject if attribute.oid != NameOID.COMMON_NAME]
    try:
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    return found + [str(name.value) for name in alternatives]


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # load_issuer has checked it
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
