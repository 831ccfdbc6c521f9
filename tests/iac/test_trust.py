"""The certificate authority: what is made, what is accepted, and what a brought issuer is refused for."""

import datetime

import pulumi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from components.trust import authority
from components.trust.authority import AuthorityError, KeyPair
from tests.iac.kit import CERTIFICATE, mesh_graph

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
YEAR = datetime.timedelta(days=365)


@pytest.fixture(scope="module")
def anchor() -> KeyPair:
    return authority.make_anchor("tulle", "cluster.local", NOW)


@pytest.fixture(scope="module")
def issuer(anchor: KeyPair) -> KeyPair:
    return authority.make_issuer(anchor, "tulle", "cluster.local", NOW)


def test_anchor_and_issuer_are_what_the_design_says(anchor: KeyPair, issuer: KeyPair) -> None:
    root, middle = (x509.load_pem_x509_certificate(pair.certificate.encode()) for pair in (anchor, issuer))
    for certificate, years, path_length in ((root, 10, 1), (middle, 1, 0)):
        life = certificate.not_valid_after_utc - NOW
        assert abs(life - years * YEAR) < datetime.timedelta(days=4)
        assert certificate.not_valid_before_utc < NOW
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=path_length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.digital_signature) == (True, False)
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
    middle.verify_directly_issued_by(root)


def test_an_issuer_never_outlives_its_anchor(anchor: KeyPair) -> None:
    late = NOW + authority.ANCHOR_LIFETIME - datetime.timedelta(days=30)
    made = authority.make_issuer(anchor, "tulle", "cluster.local", late)
    assert authority.not_after(made.certificate) == authority.not_after(anchor.certificate)


def test_an_issuer_is_renewed_in_its_last_quarter_or_under_another_anchor(anchor: KeyPair, issuer: KeyPair) -> None:
    assert authority.issuer_fits(issuer.certificate, anchor.certificate, NOW)
    assert authority.issuer_fits(issuer.certificate, anchor.certificate, NOW + YEAR * 0.7)
    assert not authority.issuer_fits(issuer.certificate, anchor.certificate, NOW + YEAR * 0.8)
    other = authority.make_anchor("tulle", "cluster.local", NOW)
    assert not authority.issuer_fits(issuer.certificate, other.certificate, NOW)
    assert not authority.issuer_fits("nonsense", anchor.certificate, NOW)


def test_a_key_is_in_no_representation(issuer: KeyPair) -> None:
    assert issuer.key not in repr(issuer)
    assert "PRIVATE" not in repr(issuer)


def test_a_good_brought_issuer_is_accepted(anchor: KeyPair, issuer: KeyPair) -> None:
    authority.check_issuer(issuer, anchor.certificate, NOW)


def refused(issuer: KeyPair, bundle: str, words: str, now: datetime.datetime = NOW) -> None:
    with pytest.raises(AuthorityError, match=words) as caught:
        authority.check_issuer(issuer, bundle, now)
    assert "PRIVATE KEY" not in str(caught.value).replace("-----BEGIN PRIVATE KEY-----", "")


def test_each_way_to_be_wrong_has_its_own_words(anchor: KeyPair, issuer: KeyPair) -> None:
    other = authority.make_issuer(anchor, "tulle", "cluster.local", NOW)
    stranger = authority.make_anchor("tulle", "cluster.local", NOW)
    refused(issuer, anchor.certificate, r"trust.issuerCertificate expired at 20\d\d-.*: renew it", NOW + 2 * YEAR)
    refused(issuer, anchor.certificate, "valid only from", NOW - YEAR)
    refused(KeyPair(issuer.certificate, other.key), anchor.certificate, "trust.issuerKey is not the key of")
    refused(issuer, stranger.certificate, r"signed by none of the anchors in trust.bundle \(CN=root")
    refused(KeyPair("x", issuer.key), anchor.certificate, "trust.issuerCertificate is not a PEM certificate")
    refused(KeyPair(issuer.certificate, "x"), anchor.certificate, "trust.issuerKey is not an unencrypted PEM")
    refused(issuer, "x", "trust.bundle holds no PEM certificates")


def test_keys_of_another_kind_are_refused(anchor: KeyPair, issuer: KeyPair) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        refused(KeyPair(issuer.certificate, pem), anchor.certificate, "P-256")


def test_a_brought_issuer_reaches_the_stack_without_its_key() -> None:
    now = datetime.datetime.now(datetime.UTC)
    anchor = authority.make_anchor("tulle", "cluster.local", now)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", now)
    graph = mesh_graph(
        "local",
        trust_issuerCertificate=issuer.certificate,
        trust_issuerKey=issuer.key,
        trust_bundle=anchor.certificate,
    )
    assert not graph.of("TrustAnchor")
    (made,) = graph.of("Issuer")
    assert made.inputs["brought"] == issuer.certificate
    body = issuer.key.splitlines()[1]
    assert not [each.name for each in graph.resources if body in str(each.raw)]
    assert graph.one("ConfigMap", "tulle-trust-bundle").inputs["data"]["ca-bundle.crt"] == anchor.certificate


def test_further_anchors_are_trusted_beside_the_stacks_own(anchor: KeyPair) -> None:
    bundle = mesh_graph("local", trust_bundle=anchor.certificate).one("ConfigMap", "tulle-trust-bundle")
    assert bundle.inputs["data"]["ca-bundle.crt"] == CERTIFICATE + anchor.certificate
    with pytest.raises(pulumi.RunError, match=r"trust.bundle holds no PEM certificates"):
        mesh_graph("local", trust_bundle="nonsense")


def test_an_expired_brought_issuer_stops_the_program() -> None:
    then = datetime.datetime.now(datetime.UTC) - 2 * YEAR
    anchor = authority.make_anchor("tulle", "cluster.local", then)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", then)
    with pytest.raises(
        pulumi.RunError, match=r"trust.issuerCertificate expired at .* UTC\n  To put it right: renew it"
    ):
        mesh_graph(
            "local",
            trust_issuerCertificate=issuer.certificate,
            trust_issuerKey=issuer.key,
            trust_bundle=anchor.certificate,
        )
