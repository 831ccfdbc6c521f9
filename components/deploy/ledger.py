"""I/O: the inventory as it stands in the cluster; each change is written before this module answers.

Every write carries the resourceVersion of the last one, so two deployments of one stack at the same time cannot both go
on.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from components.deploy import inventory
from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError
from components.deploy.inventory import Entry, Inventory


class Ledger:
    """The one writer of a stack's inventory; safe to share between threads."""

    def __init__(self, cluster: Cluster, project: str, stack: str, take: bool = False) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._address = inventory.address(project, stack)
        found = cluster.get(self._address)
        if take and not found:
            raise DeployError(f"stack {stack!r} was deployed by nobody here", "Deploy it: `tulle up` or `pulumi up`.")
        self._inventory = inventory.decode(found, take) if found else Inventory(project, stack)
        self.existed = found is not None

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All entries as last written."""
        return self._inventory.entries

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The stack's outputs as last written."""
        return self._inventory.outputs

    def write(self, entry: Entry) -> None:
        """Record one entry, unless it is recorded already."""
        with self._lock:
            if self._inventory.entries.get(entry.key) != entry:
                self._store(self._inventory.with_entry(entry))

    def move(self, old: str, new: str) -> None:
        """Record one entry under another key: its place in the program is another one, it is not."""
        with self._lock:
            entry = replace(self._inventory.entries[old], key=new)
            self._store(self._inventory.without([old]).with_entry(entry))

    def drop(self, keys: Iterable[str]) -> None:
        """Forget entries whose objects are gone."""
        with self._lock:
            self._store(self._inventory.without(keys))

    def write_outputs(self, outputs: Mapping[str, Any]) -> None:
        """Record the stack's outputs, unless they are recorded already."""
        with self._lock:
            if dict(self._inventory.outputs) != dict(outputs):
                self._store(replace(self._inventory, outputs=dict(outputs)))

    def remove(self) -> None:
        """Delete the inventory itself, at the end of a `down` that left nothing."""
        with self._lock:
            self._cluster.delete(self._address)
            self._inventory = Inventory(self._inventory.project, self._inventory.stack)

    def hand_over(self) -> None:
        """Leave the stack to the Pulumi CLI; from now on nothing here may write to it."""
        with self._lock:
            self._cluster.replace(inventory.handed_over(self._inventory))

    def _store(self, changed: Inventory) -> None:
        manifest = inventory.encode(changed)
        try:
            stored = self._cluster.replace(manifest) if changed.resource_version else self._cluster.create(manifest)
        except ClusterError as error:
            if error.status != 409:
                raise
            raise DeployError(
                f"the inventory of stack {changed.stack!r} changed while this deployment ran: another one is at work",
                "Wait until it has ended, then run the command again.",
            ) from error
        self._inventory = replace(changed, resource_version=stored["metadata"]["resourceVersion"])
