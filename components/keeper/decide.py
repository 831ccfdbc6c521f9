"""When the issuer is due, as a table: pure. Certificates and a moment in, one named verdict out.

The keeper acts on DUE and EXPIRED alone. Every other state is either good or somebody else's to change, and it says
whose.
"""

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Final

from components.trust.authority import AuthorityError, identity_of, load_bundle, load_certificate, signed_by

RENEWAL_SHARE: Final = 1 / 3
"""Of an issuer's life: renewed when less is left, so that months of failing still leave it valid."""
WORTHWHILE: Final = datetime.timedelta(hours=1)
"""A renewal that gains less than this is none: an issuer never outlives its anchor."""


class State(Enum):
    """What there is to be done about the issuer; the value is the sentence that a log says."""

    GOOD = "valid, and not yet in the last third of its life"
    DUE = "in the last third of its life: renewed now"
    EXPIRED = "expired: renewed now"
    ABSENT = "there is none: the next deployment makes it"
    UNREADABLE = "it is no certificate: the next deployment makes another"
    FOREIGN = "signed by no anchor of the bundle: whoever changes anchors sees to it"
    ANCHOR_ENDS = "its anchor ends with it, so renewing would gain nothing: rotate the anchor"
    ANCHOR_EXPIRED = "its anchor has expired: replace the anchor"


ACTS: Final = frozenset({State.DUE, State.EXPIRED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, when it is worth looking again, and the anchor that would sign."""

    state: State
    due: datetime.datetime | None = None
    """When the last third begins; None where nothing is known of the issuer."""
    anchor: str = ""
    """SHA-256 of the anchor that signed the issuer; empty where none did."""

    @property
    def renews(self) -> bool:
        """Whether the keeper acts."""
        return self.state in ACTS


def decide(issuer: str, bundle: str, lifetime: datetime.timedelta, now: datetime.datetime) -> Verdict:
    """What to do about an issuer's certificate (PEM, empty if absent) under a bundle; `lifetime` is a new one's."""
    if not issuer:
        return Verdict(State.ABSENT)
    try:
        certificate, anchors = load_certificate(issuer, "the issuer"), load_bundle(bundle)
    except AuthorityError:
        return Verdict(State.UNREADABLE)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    due = end - (end - begin) * RENEWAL_SHARE
    signers = [anchor for anchor in anchors if signed_by(certificate, anchor)]
    if not signers:
        return Verdict(State.FOREIGN, due)
    anchor = max(signers, key=lambda each: each.not_valid_after_utc)
    name = identity_of(anchor)
    if now >= anchor.not_valid_after_utc:
        return Verdict(State.ANCHOR_EXPIRED, due, name)
    if now < due:
        return Verdict(State.GOOD, due, name)
    if min(now + lifetime, anchor.not_valid_after_utc) - end < WORTHWHILE:
        return Verdict(State.ANCHOR_ENDS, due, name)
    return Verdict(State.EXPIRED if now >= end else State.DUE, due, name)
