"""The authority: what a leaf holds, which issuers are taken, and every kind of request that is refused."""

import datetime
import ipaddress
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.identity.authority import (
    MAX_CSR,
    SKEW,
    CSRError,
    Issued,
    Issuer,
    IssuerError,
    NameMismatchError,
    issue,
    load_issuer,
    public_key_of,
)
from proxy.api.names import WorkloadIdentity, workload_identity
from tests.kit.authorities import DAY, NOW, Signer, authority, request

WEB: Final = workload_identity("web", "demo", "tulle", "cluster.local")
ROOT: Final = authority("root", end=NOW + 3650 * DAY)
ISSUER: Final = authority("issuer", ROOT)
OLD_ROOT: Final = authority("old root", start=NOW - 9 * DAY, end=NOW - DAY)
LIFE: Final = datetime.timedelta(hours=24)


def loaded(issuer: Signer = ISSUER, *more: Signer, bundle: bytes = ROOT.pem, key: bytes = b"") -> Issuer:
    chain = issuer.pem + b"".join(each.pem for each in more)
    return load_issuer(chain, key or issuer.key_pem, bundle, NOW)


def issued(
    issuer: Issuer | None = None, identity: WorkloadIdentity = WEB, life: datetime.timedelta = LIFE
) -> tuple[Issued, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    found = issue(issuer or loaded(), key, identity, now=NOW, lifetime=life, serial=x509.random_serial_number())
    return found, x509.load_der_x509_certificate(found.leaf)


def test_a_leaf_has_the_tokens_names_and_nothing_else() -> None:
    _, leaf = issued()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical, "the subject is empty, so the names are critical (RFC 5280 section 4.2.1.6)"
    assert list(names.value) == [
        x509.DNSName("web.demo.serviceaccount.identity.tulle.cluster.local"),
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/demo/sa/web"),
    ]
    assert list(leaf.subject) == []


def test_a_leaf_is_a_svid() -> None:
    _, leaf = issued()
    extensions = leaf.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_cert_sign, usage.value.crl_sign) == (True, False, False)
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    assert leaf.serial_number.bit_length() > 100
    own = ISSUER.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own


def test_a_leafs_life_has_the_skew_on_both_sides() -> None:
    found, leaf = issued()
    assert leaf.not_valid_before_utc == NOW - SKEW
    assert leaf.not_valid_after_utc == found.not_after == NOW + LIFE + SKEW


def test_a_leaf_never_outlives_its_issuer() -> None:
    soon = authority("soon", ROOT, end=NOW + datetime.timedelta(hours=1))
    assert issued(loaded(soon))[0].not_after == soon.certificate.not_valid_after_utc
    middle = authority("middle", ROOT, end=NOW + datetime.timedelta(minutes=30))
    below = authority("below", middle)
    assert issued(loaded(below, middle))[0].not_after == middle.certificate.not_valid_after_utc


def test_an_issuer_about_to_expire_signs_nothing() -> None:
    dying = authority("dying", ROOT, end=NOW + datetime.timedelta(seconds=20))
    with pytest.raises(IssuerError, match="give identity a new one") as caught:
        issued(loaded(dying))
    assert caught.value.reason == "expired"


def test_an_independent_verifier_agrees() -> None:
    """pyca's own path validation, for both directions of a connection."""
    middle = authority("middle", ROOT)
    found, leaf = issued(loaded(authority("below", middle), middle))
    chain = [x509.load_der_x509_certificate(each) for each in found.intermediates]
    builder = PolicyBuilder().store(Store([ROOT.certificate])).time(NOW)
    assert len(builder.build_server_verifier(x509.DNSName(WEB.dns_name)).verify(leaf, chain)) == 4
    assert builder.build_client_verifier().verify(leaf, chain).subjects


def test_intermediates_go_along_and_anchors_do_not() -> None:
    middle = authority("middle", ROOT)
    below = authority("below", middle)
    found, _ = issued(loaded(below, middle, ROOT))
    assert [x509.load_der_x509_certificate(each) for each in found.intermediates] == [
        below.certificate,
        middle.certificate,
    ]


def test_a_self_signed_issuer_that_is_its_own_anchor_works() -> None:
    found, _ = issued(loaded(ROOT))
    assert len(found.intermediates) == 1


def test_a_p384_issuer_signs_with_its_hash() -> None:
    strong = authority("strong", ROOT, key=ec.generate_private_key(ec.SECP384R1()))
    assert isinstance(issued(loaded(strong))[1].signature_hash_algorithm, hashes.SHA384)


def test_two_anchors_in_the_bundle_are_a_rotation() -> None:
    other = authority("root", end=NOW + 3650 * DAY)
    assert loaded(bundle=other.pem + ROOT.pem).chain == (ISSUER.certificate,)
    assert loaded(authority("issuer", other), bundle=other.pem + ROOT.pem)


@pytest.mark.parametrize(
    ("reason", "words", "load"),
    [
        ("key_mismatch", "tls.key is not the key of tls.crt", lambda: loaded(key=authority("x").key_pem)),
        ("key_unreadable", "tls.key", lambda: loaded(key=b"junk")),
        (
            "key_unsupported",
            "P-256 or P-384",
            lambda: loaded(authority("rsa", ROOT, key=rsa.generate_private_key(65537, 2048))),
        ),
        (
            "key_unsupported",
            "secp521r1",
            lambda: loaded(authority("p521", ROOT, key=ec.generate_private_key(ec.SECP521R1()))),
        ),
        ("expired", "expired at", lambda: loaded(authority("old", ROOT, start=NOW - 9 * DAY, end=NOW - DAY))),
        ("not_yet_valid", "not valid before", lambda: loaded(authority("early", ROOT, start=NOW + DAY))),
        ("not_an_authority", "cA", lambda: loaded(authority("leaf", ROOT, ca=False))),
        ("not_an_authority", "keyCertSign", lambda: loaded(authority("leaf", ROOT, sign=False))),
        ("not_trusted", "no anchor of the trust bundle", lambda: loaded(bundle=authority("other").pem)),
        ("not_trusted", "no anchor", lambda: loaded(bundle=authority("root").pem)),
        ("chain_broken", "is not signed by", lambda: loaded(ISSUER, authority("stranger", ROOT))),
        ("certificate_unreadable", "tls.crt", lambda: load_issuer(b"", ISSUER.key_pem, ROOT.pem, NOW)),
        ("certificate_unreadable", "trust bundle", lambda: loaded(bundle=b"junk")),
        ("chain_too_long", "at most 8", lambda: loaded(ISSUER, *[ISSUER] * 8)),
        (
            "anchor_expired",
            "rotate the anchor",
            lambda: loaded(
                authority("i", OLD_ROOT),
                bundle=OLD_ROOT.pem,
            ),
        ),
    ],
)
def test_an_issuer_that_cannot_be_used_is_refused_by_name(reason: str, words: str, load: object) -> None:
    with pytest.raises(IssuerError, match=words) as caught:
        load()  # type: ignore[operator]
    assert caught.value.reason == reason


DNS: Final = x509.DNSName(WEB.dns_name)


@pytest.mark.parametrize(
    "csr",
    [
        request(),
        request(DNS),
        request(DNS, x509.UniformResourceIdentifier(WEB.spiffe_id)),
        request(common_name=WEB.service_account and WEB.dns_name),
    ],
)
def test_a_request_may_name_its_own_identity_or_none(csr: bytes) -> None:
    assert public_key_of(csr, WEB).curve.name == "secp256r1"


@pytest.mark.parametrize(
    ("csr", "name"),
    [
        (request(x509.DNSName("api.demo.serviceaccount.identity.tulle.cluster.local")), "api.demo"),
        (request(DNS, x509.DNSName("evil.example")), "evil.example"),
        (request(DNS, x509.UniformResourceIdentifier("spiffe://cluster.local/ns/demo/sa/api")), "sa/api"),
        (request(x509.IPAddress(ipaddress.ip_address("10.0.0.1"))), "10.0.0.1"),
        (request(x509.RFC822Name("root@cluster.local")), "root@cluster.local"),
        (request(common_name="admin"), "admin"),
        (request(x509.DNSName(WEB.dns_name.upper())), "WEB.DEMO"),
    ],
)
def test_a_request_for_another_name_is_refused_with_both_names(csr: bytes, name: str) -> None:
    with pytest.raises(NameMismatchError, match=name) as caught:
        public_key_of(csr, WEB)
    assert WEB.dns_name in str(caught.value)


def tampered() -> bytes:
    csr = bytearray(request(DNS))
    csr[csr.index(b"demo")] ^= 1
    return bytes(csr)


@pytest.mark.parametrize(
    ("csr", "words"),
    [
        (b"", "cannot be read"),
        (b"junk", "cannot be read"),
        (request(DNS)[:-1], "cannot be read"),
        (tampered(), "not signed by its own key"),
        (b"\x30" * (MAX_CSR + 1), "at most"),
        (request(DNS, key=rsa.generate_private_key(65537, 2048)), "ECDSA P-256"),
        (request(DNS, key=ec.generate_private_key(ec.SECP384R1())), "ECDSA P-256"),
    ],
)
def test_a_malformed_request_is_refused(csr: bytes, words: str) -> None:
    with pytest.raises(CSRError, match=words):
        public_key_of(csr, WEB)


def test_a_request_of_another_kind_of_key_is_refused() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(serialization.Encoding.DER)
    with pytest.raises(CSRError, match="ECDSA P-256"):
        public_key_of(csr, WEB)


GOOD: Final = request(DNS)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_no_mutation_does_more_than_be_refused(position: int, noise: bytes) -> None:
    mutated = GOOD[:position] + noise + GOOD[position + len(noise) :]
    try:
        public_key_of(mutated, WEB)
    except (CSRError, NameMismatchError):
        return
    assert mutated == GOOD
