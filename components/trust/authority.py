"""Pure: the anchor's and the issuer's certificates, made and checked; the clock is an argument.

ECDSA P-256 throughout. An anchor signs issuers only, an issuer signs leaves only (RFC 5280 section 4.2.1.9,
pathLenConstraint).
"""

import datetime
import itertools
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANCHOR_LIFETIME: Final = datetime.timedelta(days=3652)
"""Ten years: rotating an anchor is an event."""
ISSUER_LIFETIME: Final = datetime.timedelta(days=365)
"""A year, unless the stack says otherwise: renewed by the keeper in its last third."""
RENEWAL_SHARE: Final = 0.25
"""Of an issuer's life: a deployment that finds less left renews it, since then the keeper has not."""
SKEW: Final = datetime.timedelta(minutes=10)
"""Certificates begin this much earlier, since the clocks of nodes differ."""


class AuthorityError(ValueError):
    """A certificate or key that cannot serve; says which, why, and what would."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key; the key is left out of every representation."""

    certificate: str
    key: str = field(repr=False)


def make_anchor(mesh_namespace: str, trust_domain: str, now: datetime.datetime) -> KeyPair:
    """A new self-signed root."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"root.{mesh_namespace}.{trust_domain}")
    certificate = _sign(subject, key.public_key(), subject, key, now, now + ANCHOR_LIFETIME, path_length=1)
    return KeyPair(_pem(certificate), _key_pem(key))


def make_issuer(
    anchor: KeyPair,
    mesh_namespace: str,
    trust_domain: str,
    now: datetime.datetime,
    lifetime: datetime.timedelta = ISSUER_LIFETIME,
) -> KeyPair:
    """A new issuer under an anchor; never outlives it."""
    root = load_certificate(anchor.certificate, "anchor certificate")
    root_key = _load_key(anchor.key, "anchor key")
    check_current(root, "anchor certificate", now)
    _check_pair(root, root_key, "anchor certificate", "anchor key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"identity.{mesh_namespace}.{trust_domain}")
    until = min(now + lifetime, root.not_valid_after_utc)
    return KeyPair(
        _pem(_sign(subject, key.public_key(), root.subject, root_key, now, until, path_length=0)), _key_pem(key)
    )


def check_issuer(issuer: KeyPair, bundle: str, now: datetime.datetime) -> None:
    """Whether an issuer can serve under these anchors; raises AuthorityError with the first reason why not. CAs between
    it and an anchor follow it in its PEM, as a TLS server's chain does."""
    certificate = load_certificate(issuer.certificate, "trust.issuerCertificate")
    key = _load_key(issuer.key, "trust.issuerKey")
    if not isinstance(key.curve, ec.SECP256R1):
        raise AuthorityError(f"trust.issuerKey is on curve {key.curve.name}: make an ECDSA key on P-256 (prime256v1)")
    _check_pair(certificate, key, "trust.issuerCertificate", "trust.issuerKey")
    check_current(certificate, "trust.issuerCertificate", now)
    if not _is_authority(certificate):
        raise AuthorityError("trust.issuerCertificate is no CA (basicConstraints CA:TRUE): it could not sign leaves")
    anchors = load_bundle(bundle)
    chain = x509.load_pem_x509_certificates(issuer.certificate.encode())
    for child, parent in itertools.pairwise(chain):
        check_current(parent, "a CA that follows in trust.issuerCertificate", now)
        if not signed_by(child, parent):
            raise AuthorityError(
                f"trust.issuerCertificate: {child.subject.rfc4514_string()} is not signed by "
                f"{parent.subject.rfc4514_string()}, which follows it: put each certificate's signer behind it"
            )
    top = chain[-1]
    signers = [anchor for anchor in anchors if anchor == top or signed_by(top, anchor)]
    if not signers:
        known = ", ".join(anchor.subject.rfc4514_string() for anchor in anchors)
        raise AuthorityError(
            f"trust.issuerCertificate ({top.subject.rfc4514_string()}) is signed by none of the anchors in "
            f"trust.bundle ({known}): put the certificate of its signer into trust.bundle"
        )
    for anchor in signers:
        check_current(anchor, "the anchor in trust.bundle", now)


def issuer_fits(certificate_pem: str, anchor_pem: str, now: datetime.datetime) -> bool:
    """Whether an issuer made earlier is still under this anchor and not yet due for renewal."""
    try:
        certificate, anchor = load_certificate(certificate_pem, "issuer"), load_certificate(anchor_pem, "anchor")
    except AuthorityError:
        return False
    return signed_by(certificate, anchor) and not renewal_due(certificate_pem, now)


def renewal_due(certificate_pem: str, now: datetime.datetime) -> bool:
    """Whether less than the last quarter of a certificate's life is left."""
    certificate = load_certificate(certificate_pem, "certificate")
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now > certificate.not_valid_after_utc - life * RENEWAL_SHARE


def not_after(certificate_pem: str) -> str:
    """The end of a certificate's life, as ISO 8601."""
    return load_certificate(certificate_pem, "certificate").not_valid_after_utc.isoformat()


def fingerprint(certificate_pem: str) -> str:
    """SHA-256 of a certificate, for people and for comparisons."""
    return load_certificate(certificate_pem, "certificate").fingerprint(hashes.SHA256()).hex()


def load_certificate(pem: str, what: str) -> x509.Certificate:
    """The first certificate of a PEM text."""
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise AuthorityError(
            f"{what} is not a PEM certificate ({error}): it begins with -----BEGIN CERTIFICATE-----"
        ) from error


def load_bundle(pem: str) -> list[x509.Certificate]:
    """All anchors of a bundle."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise AuthorityError(
            f"trust.bundle holds no PEM certificates ({error}): give the anchors behind your issuer"
        ) from error


def check_current(certificate: x509.Certificate, what: str, now: datetime.datetime) -> None:
    """Whether a certificate is within its life."""
    if now >= certificate.not_valid_after_utc:
        raise AuthorityError(f"{what} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: renew it")
    if now < certificate.not_valid_before_utc - SKEW:
        raise AuthorityError(
            f"{what} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC: check the clock"
        )


def _sign(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    until: datetime.datetime,
    path_length: int,
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _check_pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, what: str, which: str) -> None:
    if certificate.public_key() != key.public_key():
        raise AuthorityError(f"{which} is not the key of {what}: give the two that were made together")


def identity_of(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def signed_by(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    """Whether an anchor, being a CA, signed a certificate."""
    try:
        certificate.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return _is_authority(anchor)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _load_key(pem: str, what: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        # The parser's own words may quote what it read; a key must not be printed, not even a broken one.
        raise AuthorityError(
            f"{what} is not an unencrypted PEM private key: it begins with -----BEGIN PRIVATE KEY-----"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{what} is of type {type(key).__name__}: make an ECDSA key on P-256 (prime256v1)")
    return key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
