"""When the issuer is due: every state of the table, at its edges."""

import datetime

import pytest
from cryptography import x509

from components.keeper.decide import RENEWAL_SHARE, State, decide
from components.trust import authority
from components.trust.authority import ANCHOR_LIFETIME, ISSUER_LIFETIME, SKEW, KeyPair, identity_of

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
ANCHOR = authority.make_anchor("tulle", "cluster.local", NOW)
ISSUER = authority.make_issuer(ANCHOR, "tulle", "cluster.local", NOW)
END = NOW + ISSUER_LIFETIME
DUE = END - (ISSUER_LIFETIME + SKEW) * RENEWAL_SHARE


def state(now: datetime.datetime, issuer: KeyPair = ISSUER, bundle: str = ANCHOR.certificate) -> State:
    return decide(issuer.certificate, bundle, ISSUER_LIFETIME, now).state


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (NOW, State.GOOD),
        (DUE - SECOND, State.GOOD),
        (DUE + SECOND, State.DUE),
        (END - SECOND, State.DUE),
        (END, State.EXPIRED),
        (END + datetime.timedelta(days=400), State.EXPIRED),
        (NOW + ANCHOR_LIFETIME, State.ANCHOR_EXPIRED),
    ],
)
def test_an_issuers_life(now: datetime.datetime, wanted: State) -> None:
    assert state(now) is wanted


def test_only_two_states_act() -> None:
    acting = {each for each in State if each in (State.DUE, State.EXPIRED)}
    for moment in (NOW, DUE + SECOND, END, NOW + ANCHOR_LIFETIME):
        verdict = decide(ISSUER.certificate, ANCHOR.certificate, ISSUER_LIFETIME, moment)
        assert verdict.renews is (verdict.state in acting)
        assert verdict.due is not None
        assert abs(verdict.due - DUE) < SECOND


def test_what_is_not_ours_to_change_is_left() -> None:
    stranger = authority.make_anchor("tulle", "cluster.local", NOW)
    assert state(END, bundle=stranger.certificate) is State.FOREIGN
    assert decide("", ANCHOR.certificate, ISSUER_LIFETIME, NOW).state is State.ABSENT
    assert decide("nonsense", ANCHOR.certificate, ISSUER_LIFETIME, NOW).state is State.UNREADABLE
    assert decide(ISSUER.certificate, "nonsense", ISSUER_LIFETIME, NOW).state is State.UNREADABLE


def test_the_anchor_that_signed_is_named_among_several() -> None:
    other = authority.make_anchor("tulle", "cluster.local", NOW)
    bundle = other.certificate + ANCHOR.certificate
    verdict = decide(ISSUER.certificate, bundle, ISSUER_LIFETIME, NOW)
    assert verdict.state is State.GOOD
    assert verdict.anchor == identity_of(x509.load_pem_x509_certificate(ANCHOR.certificate.encode()))


def test_an_issuer_that_ends_with_its_anchor_is_not_renewed_again_and_again() -> None:
    late = NOW + ANCHOR_LIFETIME - datetime.timedelta(days=30)
    issuer = authority.make_issuer(ANCHOR, "tulle", "cluster.local", late)
    for days in (21, 25, 29):
        assert state(late + datetime.timedelta(days=days), issuer) is State.ANCHOR_ENDS


def test_renewals_follow_one_another_through_the_anchors_whole_life() -> None:
    """A century of minutes is not needed: the keeper acts on the first look after each due moment."""
    issuer, now, made = ISSUER, NOW, 0
    while True:
        verdict = decide(issuer.certificate, ANCHOR.certificate, ISSUER_LIFETIME, now)
        if verdict.state is State.ANCHOR_ENDS:
            break
        if verdict.renews:
            end = x509.load_pem_x509_certificate(issuer.certificate.encode()).not_valid_after_utc
            assert end - now > ISSUER_LIFETIME * 0.3, "renewed with a third to spare"
            issuer, made = authority.make_issuer(ANCHOR, "tulle", "cluster.local", now), made + 1
        assert verdict.due is not None
        now = max(now, verdict.due) + SECOND
    assert 13 <= made <= 15
    assert NOW + ANCHOR_LIFETIME - now < ISSUER_LIFETIME / 2
