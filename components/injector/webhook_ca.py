"""The webhook's own little CA: pure. Keys and certificates as values, and when each is to be made anew.

It has nothing to do with the mesh's trust anchor: it vouches for one server to one client, the API server. Keys are
random, which is the only thing here that is not decided by the arguments.
"""

import datetime
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE: Final = datetime.timedelta(days=365)
CA_RENEW: Final = datetime.timedelta(days=120)
LEAF_LIFE: Final = datetime.timedelta(days=30)
LEAF_RENEW: Final = datetime.timedelta(days=10)
"""Renewal comes with a third of the life left, so that ten days of trouble break nothing."""
BACKDATE: Final = datetime.timedelta(hours=1)
"""The API server's clock may be behind ours."""


class MaterialError(ValueError):
    """What is stored cannot be used; it is made anew."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the Secret holds, all PEM. `ca_bundle` begins with the CA in use; an earlier one follows while it lasts."""

    ca_bundle: bytes
    ca_key: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Material({len(self.ca_bundle)} bytes of CA certificates, keys hidden)"

    def as_data(self) -> dict[str, bytes]:
        """The keys of the Secret."""
        return {"ca.crt": self.ca_bundle, "ca.key": self.ca_key, "tls.crt": self.certificate, "tls.key": self.key}

    @classmethod
    def from_data(cls, data: dict[str, bytes]) -> "Material":
        """Read a Secret; raises MaterialError."""
        try:
            return cls(data["ca.crt"], data["ca.key"], data["tls.crt"], data["tls.key"])
        except KeyError as error:
            raise MaterialError(f"the Secret has no key {error.args[0]}") from None


def due(material: Material, names: tuple[str, ...], now: datetime.datetime) -> str | None:
    """What is to be made anew: `ca`, `leaf` or nothing; raises MaterialError."""
    authorities, leaf = _read(material)
    if authorities[0].not_valid_after_utc - now < CA_RENEW:
        return "ca"
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "leaf"
    if leaf.not_valid_after_utc - now < LEAF_RENEW or set(found.get_values_for_type(x509.DNSName)) != set(names):
        return "leaf"
    return None


def expiry(material: Material) -> datetime.datetime:
    """When the leaf expires."""
    return x509.load_pem_x509_certificate(material.certificate).not_valid_after_utc


def make_material(names: tuple[str, ...], now: datetime.datetime, previous: Material | None = None) -> Material:
    """A new CA and its leaf; a previous CA stays trusted while it lasts, so that replicas change over one by one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tulle-injector webhook CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    bundle = _pem(certificate)
    if previous is not None:
        bundle += b"".join(_pem(old) for old in _read(previous)[0][:1] if old.not_valid_after_utc > now)
    return renew_leaf(Material(bundle, _key_pem(key), b"", b""), names, now)


def renew_leaf(material: Material, names: tuple[str, ...], now: datetime.datetime) -> Material:
    """A new leaf by the CA in use."""
    authority = x509.load_pem_x509_certificates(material.ca_bundle)[0]
    signer = serialization.load_pem_private_key(material.ca_key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # we made it
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tulle-injector")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + LEAF_LIFE, authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Material(material.ca_bundle, material.ca_key, _pem(leaf), _key_pem(key))


def _read(material: Material) -> tuple[list[x509.Certificate], x509.Certificate]:
    """The CAs and the leaf, checked to belong together; raises MaterialError."""
    try:
        authorities = x509.load_pem_x509_certificates(material.ca_bundle)
        leaf = x509.load_pem_x509_certificate(material.certificate)
        ca_key = serialization.load_pem_private_key(material.ca_key, password=None)
        key = serialization.load_pem_private_key(material.key, password=None)
        if ca_key.public_key() != authorities[0].public_key() or key.public_key() != leaf.public_key():
            raise MaterialError("a key does not belong to its certificate")
        if not any(_signed(leaf, each) for each in authorities):
            raise MaterialError("the certificate is of none of the CAs")
    except MaterialError:
        raise
    except (ValueError, TypeError) as error:
        raise MaterialError(f"not readable: {error}") from None
    return authorities, leaf


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except Exception:
        return False
    return True


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
