"""What proxies have reported when they asked for certificates, as one ConfigMap holds it: pure.

A line per pod: which trust bundle it has loaded, and which anchor its certificate leads to. Identity writes it, an
anchor's rotation reads it; a pod that is missing has reported nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.api import labels

NAME: Final = "tulle-trust-reports"
KEY: Final = "reports.json"
DIGITS: Final = 16
"""Hexadecimal digits kept of a hash: enough to tell a mesh's few bundles and anchors apart."""
MOST: Final = 8_000
"""Pods that fit one ConfigMap (1 MiB); the oldest reports give way, and a rotation then waits for their pods."""


@dataclass(frozen=True, slots=True)
class Report:
    """One pod's last word."""

    bundle: str
    """SHA-256 of the bundle that its proxy has loaded, shortened."""
    anchor: str
    """SHA-256 of the anchor that its certificate leads to, shortened."""
    until: int
    """Unix time at which that certificate ends; a report is worth nothing after it."""


def digest(bundle: str) -> str:
    """How a bundle is called in a report."""
    return hashlib.sha256(bundle.encode()).hexdigest()[:DIGITS]


def decode(config_map: Mapping[str, Any] | None) -> dict[str, Report]:
    """Reports by the pod's UID; what cannot be read was never reported."""
    try:
        raw = json.loads(((config_map or {}).get("data") or {}).get(KEY, "{}"))
        return {uid: Report(str(bundle), str(anchor), int(until)) for uid, (bundle, anchor, until) in raw.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def encode(namespace: str, reports: Mapping[str, Report], version: str = "") -> dict[str, Any]:
    """The ConfigMap; with a resource version, only if nobody changed it meanwhile."""
    metadata: dict[str, Any] = {
        "name": NAME,
        "namespace": namespace,
        "labels": {labels.PART_OF: "tulle", labels.COMPONENT: "identity", labels.MANAGED_BY: "tulle-identity"},
    }
    if version:
        metadata["resourceVersion"] = version
    raw = {uid: [each.bundle, each.anchor, each.until] for uid, each in sorted(reports.items())}
    data = {KEY: json.dumps(raw, separators=(",", ":"))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def merged(stored: Mapping[str, Report], news: Mapping[str, Report], now: int) -> dict[str, Report]:
    """What is stored after news came: nothing that has ended, and never more than fits."""
    alive = {uid: each for uid, each in {**stored, **news}.items() if each.until > now}
    if len(alive) <= MOST:
        return alive
    latest = sorted(alive, key=lambda uid: alive[uid].until, reverse=True)[:MOST]
    return {uid: alive[uid] for uid in latest}
