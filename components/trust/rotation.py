"""Whether a step of an anchor's rotation is safe: pure. What is live, what is wanted and what pods have reported in;
nothing or a reason to stop out.

    publish   trust the new anchor beside the old one          always safe
    switch    sign with the new anchor                         every running pod trusts both
    drop      trust the new anchor alone                       every running pod's certificate is of the new one
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from components.trust.reports import DIGITS, Report

SHOWN: Final = 5
"""Pods that a reason names."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Anchors (by SHA-256) that are trusted, and the one that signs; empty where there is none yet."""

    anchors: frozenset[str]
    signer: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A running meshed pod."""

    name: str
    uid: str


def refusal(live: Trust, wanted: Trust, bundle: str, pods: Sequence[Pod], reports: Mapping[str, Report]) -> str | None:
    """Why going from one to the other must wait, or None. `bundle` is the digest of the live bundle."""
    if not live.anchors or live == wanted:
        return None
    dropped = live.anchors - wanted.anchors
    switches = bool(live.signer) and live.signer != wanted.signer
    if switches and dropped:
        return "this would change the signer and drop an anchor at once: first change trust.signer alone"
    if switches and wanted.signer not in live.anchors:
        return "the new signer is not trusted yet: first deploy with both in trust.anchors and the old trust.signer"
    if switches:
        late = [pod for pod in pods if pod.uid not in reports or reports[pod.uid].bundle != bundle]
        return _late(late, pods, "have not reported that they trust both anchors")
    if dropped:
        trusted = {anchor[:DIGITS] for anchor in wanted.anchors}
        late = [pod for pod in pods if pod.uid not in reports or reports[pod.uid].anchor not in trusted]
        return _late(late, pods, "have not reported a certificate of an anchor that stays")
    return None


def _late(late: Collection[Pod], pods: Sequence[Pod], what: str) -> str | None:
    if not late:
        return None
    names = sorted(pod.name for pod in late)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{len(late)} of {len(pods)} running meshed pods {what}: {shown}"
