"""Certificates of any making: a chain that a proxy takes, and every way to differ from it. Pure, but for keys and the
clock.

    spoilt(NAME, signer, uris=(ID, ID))      a leaf like those of identity, but for two SPIFFE IDs
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.kit.peers import Leaf, spiffe_id

Key = CertificateIssuerPrivateKeyTypes
UNKNOWN: Final = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SIGN: Final = ("digital_signature",)
PEM: Final = serialization.Encoding.PEM


@dataclass(frozen=True)
class Signer:
    """A CA of the tests: its certificate, its key, and what a peer must send along up to, but without, the anchor."""

    certificate: x509.Certificate
    key: Key = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()

    @property
    def path(self) -> tuple[x509.Certificate, ...]:
        """What follows a leaf of it in a handshake."""
        return (self.certificate, *self.above)

    @classmethod
    def of(cls, certificate: str, key: str) -> "Signer":
        """From PEM."""
        private = serialization.load_pem_private_key(key.encode(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(certificate.encode()), private)


def usage(*allowed: str) -> x509.KeyUsage:
    """keyUsage with these bits."""
    bits = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{bit: bit in allowed for bit in bits})


def new_key(kind: str = "P-256") -> Key:
    """A key of a kind."""
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


def named(common_name: str) -> x509.Name:
    """A subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


@dataclass(frozen=True)
class Making:
    """How a leaf is made; the defaults are identity's."""

    dns: Sequence[str] = ()
    uris: Sequence[str] = ()
    others: Sequence[x509.GeneralName] = ()
    raw_names: bytes = b""
    subject: str = ""
    names_critical: bool = True
    begins: timedelta = timedelta(minutes=-5)
    ends: timedelta = timedelta(hours=1)
    is_ca: bool = False
    usage: Sequence[str] | None = SIGN
    usage_critical: bool = True
    extended: Sequence[ObjectIdentifier] | None = BOTH
    unknown: bool = False
    key: str = "P-256"
    digest: hashes.HashAlgorithm | None = field(default_factory=hashes.SHA256)
    names_key: Key | None = field(default=None, repr=False)
    own_signature: bool = False
    tampered: bool = False
    path: Sequence[x509.Certificate] | None = None


def sign(making: Making, signer: Signer) -> Leaf:
    """Make one, with the chain that goes with it."""
    key = new_key(making.key)
    now = datetime.now(UTC)
    subject = named(making.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if making.own_signature else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + making.begins)
        .not_valid_after(now + making.ends)
        .add_extension(x509.BasicConstraints(ca=making.is_ca, path_length=None), critical=True)
    )
    names: list[x509.GeneralName] = [x509.DNSName(each) for each in making.dns]
    names += [x509.UniformResourceIdentifier(each) for each in making.uris]
    names += making.others
    if making.raw_names:
        oid = x509.SubjectAlternativeName.oid
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, making.raw_names), critical=True)
    elif names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=making.names_critical)
    if making.usage is not None:
        builder = builder.add_extension(usage(*making.usage), critical=making.usage_critical)
    if making.extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(making.extended), critical=False)
    if making.unknown:
        builder = builder.add_extension(UNKNOWN, critical=True)
    if not making.own_signature:
        above = making.names_key or signer.key
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key())
        builder = builder.add_extension(identifier, critical=False)
    made = builder.sign(key if making.own_signature else signer.key, making.digest)  # type: ignore[arg-type]
    first = made.public_bytes(PEM)
    if making.tampered:
        der = bytearray(made.public_bytes(serialization.Encoding.DER))
        der[-1] ^= 1
        first = x509.load_der_x509_certificate(bytes(der)).public_bytes(PEM)
    path = signer.path if making.path is None else making.path
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Leaf(first + b"".join(each.public_bytes(PEM) for each in path), private)


def good(name: str) -> Making:
    """As identity makes it for this DNS name."""
    return Making(dns=(name,), uris=(spiffe_id(name),))


def spoilt(name: str, signer: Signer, **changes: object) -> Leaf:
    """A leaf like identity's, but for these fields of Making."""
    return sign(replace(good(name), **changes), signer)  # type: ignore[arg-type]


def ca(
    name: str,
    above: Signer | None = None,
    *,
    is_ca: bool = True,
    signs: bool = True,
    length: int | None = None,
    ends: timedelta = timedelta(hours=1),
    key: str = "P-256",
    constraints: x509.NameConstraints | None = None,
    unknown: bool = False,
) -> Signer:
    """A CA or what only looks like one; self-signed without another above it."""
    own = new_key(key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(above.certificate.subject if above else named(name))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=length if is_ca else None), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign") if signs else usage("digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    if unknown:
        builder = builder.add_extension(UNKNOWN, critical=True)
    if above is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    made = builder.sign(above.key if above else own, hashes.SHA256())
    # An anchor is the last of its path, and is not sent.
    above_it = () if above is None else tuple(each for each in above.path if each.subject != each.issuer)
    return Signer(made, own, above_it)


def address(text: str) -> x509.IPAddress:
    """An iPAddress name."""
    return x509.IPAddress(ipaddress.ip_address(text))
