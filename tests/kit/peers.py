"""Peers that are not Tulle's: certificates of any making, and TLS clients that show them. OpenSSL by Python's `ssl`."""

import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.api.names import InvalidNameError, workload_identity


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs others, with its key and what stands above it, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)  # a failed test prints its values, and this may be the mesh's own

    @classmethod
    def new(cls, name: str) -> "Authority":
        """A self-signed one that nobody trusts."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def leaf(self, dns_name: str, lifetime: timedelta = timedelta(hours=1), age: timedelta = timedelta()) -> "Leaf":
        """A leaf for both ends of a connection, with this name; valid from 5 minutes ago, or `age` earlier still."""
        issuer = x509.load_pem_x509_certificates(self.certificate)[0]
        signer = load_pem_private_key(self.key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        begin = datetime.now(UTC) - timedelta(minutes=5) - age
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(minutes=5) + lifetime)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(dns_name), x509.UniformResourceIdentifier(spiffe_id(dns_name))]
                ),
                critical=True,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(signer, hashes.SHA256())
        )
        return Leaf(certificate.public_bytes(serialization.Encoding.PEM) + self.certificate, _pem(key))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate chain and its key, as PEM."""

    chain: bytes
    key: bytes = field(repr=False)


def spiffe_id(dns_name: str) -> str:
    """What identity writes beside a workload's name; for the name of no workload, an ID that is like it."""
    account, _, rest = dns_name.partition(".")
    namespace, _, rest = rest.partition(".serviceaccount.identity.")
    mesh, _, domain = rest.partition(".")
    try:
        return workload_identity(account, namespace, mesh, domain).spiffe_id
    except InvalidNameError:
        return f"spiffe://cluster.local/host/{dns_name}"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a TLS client got: the peer's certificate (DER) if it came that far, bytes, or an error's words."""

    peer: bytes | None
    data: bytes
    error: str


def ask(
    address: tuple[str, int],
    server_name: str,
    leaf: Leaf | None,
    request: bytes = b"",
    alpn: tuple[str, ...] = (),
    seconds: float = 5,
) -> Answer:
    """Connect over TLS 1.3, show `leaf` (or nothing), send a request, read until the peer ends or says why not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # what is too weak is for the other side to say
    if alpn:
        # The public method takes ASCII alone; a peer may state any bytes.
        stated = b"".join(bytes((len(each),)) + each.encode("latin-1") for each in alpn)
        context._set_alpn_protocols(stated)  # type: ignore[attr-defined]
    if leaf is not None:
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(leaf.chain)
            key.write_bytes(leaf.key)
            context.load_cert_chain(chain, key)
    peer: bytes | None = None
    data = b""
    try:
        with socket.create_connection(address, timeout=seconds) as plain:
            with context.wrap_socket(plain, server_hostname=server_name) as wrapped:
                peer = wrapped.getpeercert(binary_form=True)
                wrapped.sendall(request)
                while chunk := wrapped.recv(65536):
                    data += chunk
    except (OSError, ssl.SSLError) as error:
        return Answer(peer, data, str(error) or type(error).__name__)
    return Answer(peer, data, "")
