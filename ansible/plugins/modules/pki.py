#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Keep the certificates of a cluster: look at what is there, and make what is missing or stale."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pki
short_description: Keep a folder of certificate authorities, certificates and key pairs
version_added: "0.1.0"
description:
  - Makes what is missing, makes again what is about to expire, was signed by another authority, or differs from what is
    asked for, and leaves everything else as it is.
  - Keys are ECDSA P-256. Private keys are readable by their owner only, and are never part of the result.
options:
  directory:
    description: The folder that holds C(NAME.crt) and C(NAME.key) for every entry.
    type: path
    required: true
  authorities:
    description: Names of the certificate authorities to keep.
    type: list
    elements: str
    required: true
  certificates:
    description: The certificates to keep.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the files.
        type: str
        required: true
      authority:
        description: The authority that signs it.
        type: str
        required: true
      common_name:
        description: The subject's common name, which Kubernetes reads as the user.
        type: str
        required: true
      organization:
        description: The subject's organization, which Kubernetes reads as the group.
        type: str
      names:
        description: DNS names and IP addresses that the certificate is good for.
        type: list
        elements: str
        default: []
  key_pairs:
    description: Names of bare key pairs to keep, as C(NAME.key) and C(NAME.pub).
    type: list
    elements: str
    default: []
  renew_before_days:
    description: A certificate with less than this left is made again.
    type: int
    default: 60
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Keep an authority and one server certificate
  tulle.mesh.pki:
    directory: /var/lib/example/pki
    authorities: [ca]
    certificates:
      - name: server
        authority: ca
        common_name: server
        names: [localhost, 127.0.0.1]
"""

RETURN = r"""
made:
  description: The names of what was made in this run.
  type: list
  elements: str
  returned: always
"""

import datetime
import ipaddress
import os
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

# An authority outlives its certificates by far, so that renewing a certificate never has to renew its authority.
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
# Clocks of containers and hosts differ by a little; a certificate is good from a moment before it was made.
SKEW = datetime.timedelta(minutes=5)


def write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, never readable by others for a moment."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def key_bytes(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def subject(common_name: str, organization: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def alternative_names(names: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def load(directory: Path, name: str) -> x509.Certificate | None:
    """The certificate under this name, if its key is beside it and belongs to it."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{name}.key").read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def builder(name: x509.Name, issuer: x509.Name, key, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


class Keeper:
    """One run over one folder: looks, and makes what is missing unless only asked to look."""

    def __init__(self, directory: Path, renew_before: datetime.timedelta, only_look: bool) -> None:
        self.directory = directory
        self.deadline = datetime.datetime.now(datetime.UTC) + renew_before
        self.only_look = only_look
        self.made: list[str] = []

    def authority(self, name: str) -> None:
        present = load(self.directory, name)
        if present is not None and present.not_valid_after_utc > self.deadline:
            return
        self.made.append(name)
        if self.only_look:
            return
        key = ec.generate_private_key(ec.SECP256R1())
        title = subject(f"tulle-local-{name}", None)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            builder(title, title, key, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._store(name, key, certificate)

    def certificate(self, wanted: dict) -> None:
        if self._is_good(wanted):
            return
        self.made.append(wanted["name"])
        if self.only_look:
            return
        signer = x509.load_pem_x509_certificate((self.directory / f"{wanted['authority']}.crt").read_bytes())
        signing_key = serialization.load_pem_private_key(
            (self.directory / f"{wanted['authority']}.key").read_bytes(), None
        )
        key = ec.generate_private_key(ec.SECP256R1())
        title = subject(wanted["common_name"], wanted["organization"])
        making = (
            builder(title, signer.subject, key, CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        )
        if wanted["names"]:
            making = making.add_extension(
                x509.SubjectAlternativeName(alternative_names(wanted["names"])), critical=False
            )
        self._store(wanted["name"], key, making.sign(signing_key, hashes.SHA256()))

    def key_pair(self, name: str) -> None:
        if (self.directory / f"{name}.key").exists() and (self.directory / f"{name}.pub").exists():
            return
        self.made.append(name)
        if self.only_look:
            return
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write(self.directory / f"{name}.key", key_bytes(key), 0o600)
        write(self.directory / f"{name}.pub", public, 0o644)

    def _is_good(self, wanted: dict) -> bool:
        present = load(self.directory, wanted["name"])
        if present is None or present.not_valid_after_utc <= self.deadline:
            return False
        if present.subject != subject(wanted["common_name"], wanted["organization"]):
            return False
        if names_of(present) != set(alternative_names(wanted["names"])):
            return False
        signer = load(self.directory, wanted["authority"])
        if signer is None:
            return False
        try:
            present.verify_directly_issued_by(signer)
        except (InvalidSignature, TypeError, ValueError):
            return False
        return True

    def _store(self, name: str, key, certificate: x509.Certificate) -> None:
        # The key first: a run killed between the two leaves a pair that does not match, which the next run replaces.
        write(self.directory / f"{name}.key", key_bytes(key), 0o600)
        write(self.directory / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def main() -> None:
    certificate = {
        "name": {"type": "str", "required": True},
        "authority": {"type": "str", "required": True},
        "common_name": {"type": "str", "required": True},
        "organization": {"type": "str"},
        "names": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "authorities": {"type": "list", "elements": "str", "required": True},
            "certificates": {"type": "list", "elements": "dict", "default": [], "options": certificate},
            "key_pairs": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "renew_before_days": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if IMPORT_ERROR is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=IMPORT_ERROR)
    unknown = {entry["authority"] for entry in module.params["certificates"]} - set(module.params["authorities"])
    if unknown:
        module.fail_json(msg=f"certificates: no authority named {', '.join(sorted(unknown))}; name it in 'authorities'")
    directory = Path(module.params["directory"])
    if not module.check_mode:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = Keeper(directory, datetime.timedelta(days=module.params["renew_before_days"]), module.check_mode)
    for name in module.params["authorities"]:
        keeper.authority(name)
    for wanted in module.params["certificates"]:
        keeper.certificate(wanted)
    for name in module.params["key_pairs"]:
        keeper.key_pair(name)
    module.exit_json(changed=bool(keeper.made), made=keeper.made)


if __name__ == "__main__":
    main()
