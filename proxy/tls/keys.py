"""The child process that makes the pod's key: `python3 -m proxy.tls.keys <identity>`. Nothing here runs in the proxy
itself.

It exists because `cryptography` would cost the sidecar tens of megabytes for one key in its life. Key and CSR leave
over the pipe that is this process's standard output, as DER, each behind four bytes of length; neither ever touches a
disk, and the process ends at once. `proxy.control.keypair` is the other end of the pipe.
"""

import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.tls.framing import framed


def key_and_request(identity: str) -> tuple[bytes, bytes]:
    """A new ECDSA P-256 key (PKCS#8) and a CSR whose only name is `identity` (PKCS#10)."""
    key = ec.generate_private_key(ec.SECP256R1())
    # With an empty subject the SAN must be critical (RFC 5280 section 4.2.1.6); a CN would be cut off at 64 characters.
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pkcs8 = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pkcs8, request.public_bytes(serialization.Encoding.DER)


def main(arguments: list[str]) -> int:
    """Write key and CSR to the pipe."""
    if len(arguments) != 1:
        print("usage: python3 -m proxy.tls.keys <identity>", file=sys.stderr)
        return 64
    if sys.stdout.isatty():
        print("proxy.tls.keys: a private key is not written to a terminal; read it from a pipe", file=sys.stderr)
        return 64
    sys.stdout.buffer.write(framed(*key_and_request(arguments[0])))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
