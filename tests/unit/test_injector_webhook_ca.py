"""The webhook's own CA: what is made, when it is made anew, and that old and new overlap."""

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from components.injector.webhook_ca import (
    CA_LIFE,
    CA_RENEW,
    LEAF_LIFE,
    LEAF_RENEW,
    Material,
    MaterialError,
    due,
    expiry,
    make_material,
    renew_leaf,
)

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
NAMES = ("injector.tulle.svc", "injector.tulle.svc.cluster.local")
MADE = make_material(NAMES, NOW)


def trusted_by(bundle: bytes, material: Material, now: datetime.datetime) -> bool:
    """Whether a client that knows the bundle, as the API server does, takes the certificate."""
    store = Store(x509.load_pem_x509_certificates(bundle))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(NAMES[0]))
    try:
        verifier.verify(x509.load_pem_x509_certificate(material.certificate), [])
    except x509.verification.VerificationError:
        return False
    return True


def test_what_is_made_is_good_for_its_names() -> None:
    assert trusted_by(MADE.ca_bundle, MADE, NOW)
    assert due(MADE, NAMES, NOW) is None
    assert expiry(MADE) == NOW + LEAF_LIFE


def test_a_leaf_is_due_with_a_third_of_its_life_left() -> None:
    assert due(MADE, NAMES, NOW + LEAF_LIFE - LEAF_RENEW) is None
    assert due(MADE, NAMES, NOW + LEAF_LIFE - LEAF_RENEW + SECOND) == "leaf"


def test_a_leaf_with_other_names_is_due() -> None:
    assert due(MADE, ("injector.mesh.svc",), NOW) == "leaf"


def test_the_ca_is_due_before_it_would_shorten_a_leaf() -> None:
    late = NOW + CA_LIFE - CA_RENEW + SECOND
    assert due(renew_leaf(MADE, NAMES, late - SECOND), NAMES, late) == "ca"


def test_a_renewed_leaf_is_of_the_same_ca() -> None:
    renewed = renew_leaf(MADE, NAMES, NOW + LEAF_LIFE)
    assert renewed.ca_bundle == MADE.ca_bundle
    assert renewed.key != MADE.key
    assert trusted_by(MADE.ca_bundle, renewed, NOW + LEAF_LIFE)


def test_during_a_change_of_ca_old_and_new_replicas_are_both_trusted() -> None:
    later = NOW + datetime.timedelta(days=20)
    changed = make_material(NAMES, later, MADE)
    assert trusted_by(changed.ca_bundle, MADE, later)
    assert trusted_by(changed.ca_bundle, changed, later)
    assert not trusted_by(MADE.ca_bundle, changed, later)
    again = make_material(NAMES, later, changed)
    assert len(x509.load_pem_x509_certificates(again.ca_bundle)) == 2, "the bundle does not grow"


def test_an_expired_ca_is_not_carried_on() -> None:
    changed = make_material(NAMES, NOW + CA_LIFE + SECOND, MADE)
    assert len(x509.load_pem_x509_certificates(changed.ca_bundle)) == 1


OTHER = make_material(NAMES, NOW)


@pytest.mark.parametrize(
    "broken",
    [
        dataclasses.replace(MADE, key=OTHER.key),
        dataclasses.replace(MADE, ca_key=OTHER.ca_key),
        dataclasses.replace(MADE, ca_bundle=OTHER.ca_bundle, ca_key=OTHER.ca_key),
        dataclasses.replace(MADE, certificate=b"junk"),
        dataclasses.replace(MADE, ca_bundle=b""),
        dataclasses.replace(MADE, key=b""),
    ],
)
def test_material_that_does_not_fit_together_is_refused(broken: Material) -> None:
    with pytest.raises(MaterialError):
        due(broken, NAMES, NOW)


def test_it_is_stored_and_read_back() -> None:
    assert Material.from_data(MADE.as_data()) == MADE
    with pytest.raises(MaterialError, match=r"ca\.key"):
        Material.from_data({"ca.crt": b""})


def test_its_repr_holds_no_key() -> None:
    assert "PRIVATE" not in repr(MADE)
