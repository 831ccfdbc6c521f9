"""Pure: what an object is called: its kind, namespace and name; a manifest, as plain data; and a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ref:
    """The address of one object."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Ref":
        """The address written in a manifest."""
        metadata = manifest.get("metadata") or {}
        return cls(
            str(manifest["apiVersion"]),
            str(manifest["kind"]),
            metadata.get("namespace") or "",
            metadata.get("name") or "",
        )

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster is meant: a kubeconfig file and one context in it."""

    kubeconfig: str
    context: str

    def __str__(self) -> str:
        return f"context {self.context!r} of {self.kubeconfig}"
