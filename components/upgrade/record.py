"""What an upgrade writes down in the cluster, so that a run that was killed or stopped goes on where it was: pure.

Which workloads are done is not in it: their pods say that themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from components.upgrade.waves import Figures
from proxy.api import labels

NAME: Final = "tulle-upgrade"
RUNNING: Final = "running"
STOPPED: Final = "stopped"
DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class Record:
    """One upgrade."""

    image: str
    """The proxy image that it brings."""
    started: str
    """RFC 3339. It is also what `kubectl.kubernetes.io/restartedAt` gets, so that a workload which a killed run had
    restarted already is not restarted again.
    """
    state: str = RUNNING
    """RUNNING (or killed), STOPPED or DONE."""
    reason: str = ""
    """Why it stopped."""
    current: str = ""
    """The namespace whose last wave has not been judged; empty for none."""
    before: Mapping[str, Figures] = field(default_factory=dict)
    """By namespace, what was measured before its first wave."""


def encode(record: Record, mesh_namespace: str, resource_version: str = "") -> dict[str, Any]:
    """The ConfigMap that carries a record."""
    metadata: dict[str, Any] = {
        "name": NAME,
        "namespace": mesh_namespace,
        "labels": {labels.PART_OF: "tulle", labels.COMPONENT: "upgrade"},
    }
    if resource_version:
        metadata["resourceVersion"] = resource_version
    data = {
        "image": record.image,
        "started": record.started,
        "state": record.state,
        "reason": record.reason,
        "current": record.current,
        "before": json.dumps(record.before, sort_keys=True),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def decode(config_map: Mapping[str, Any] | None) -> Record | None:
    """The record, or None where there is none that can be read."""
    data = (config_map or {}).get("data") or {}
    try:
        before = {
            str(namespace): {str(place): (float(rate), float(share)) for place, (rate, share) in figures.items()}
            for namespace, figures in json.loads(data["before"]).items()
        }
        return Record(data["image"], data["started"], data["state"], data["reason"], data["current"], before)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
