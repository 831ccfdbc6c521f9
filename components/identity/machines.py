"""Machines outside the cluster, as identity sees them: does I/O. Reads their ExternalWorkload, and writes down that a
token is spent before anything is signed for it.

What a token or a key may do is decided in `components.external.joining`.
"""

import datetime
from typing import Any

from components.external import joining
from components.external.joining import JoinError
from components.kube.client import EXTERNAL_WORKLOADS, Kube, KubeError
from proxy.api.names import WorkloadIdentity


class Machines:
    """The ExternalWorkloads of one API server."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def find(self, name: str, identity: WorkloadIdentity) -> dict[str, Any]:
        """The object of this name in the identity's own namespace; raises JoinError, or KubeError."""
        try:
            found: dict[str, Any] = await self._kube.get(EXTERNAL_WORKLOADS, dict[str, Any], name, identity.namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            raise JoinError("unknown", f"there is no ExternalWorkload {identity.namespace}/{name} any more") from error
        return found

    async def spend(self, workload: dict[str, Any], token: bytes, key: bytes, now: datetime.datetime) -> None:
        """Spend the token on the key, in the version that was read; raises JoinError, or KubeError."""
        changed = joining.joined(workload, token, key, now)
        if changed is None:
            return
        metadata = workload["metadata"]
        path = EXTERNAL_WORKLOADS.path(metadata["namespace"], metadata["name"], "status")
        try:
            await self._kube.request("PUT", path, body=changed)
        except KubeError as error:
            if not error.conflict:
                raise
            where = f"ExternalWorkload {metadata['namespace']}/{metadata['name']}"
            raise JoinError("conflict", f"{where} was changed at this moment; try again") from error
