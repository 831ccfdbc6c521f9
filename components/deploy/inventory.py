"""Pure: what a stack owns in the cluster, written down so that the next run, or the run after a kill, knows.

An entry is written as an intent before its object is touched and completed with the object's UID afterwards; only what
has an entry is ever pruned. Entries are keyed by what they are in the cluster, not by their place in the program, so
moving code moves no object.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from components.deploy.errors import OwnershipError
from components.deploy.refs import Manifest, Ref

EMBEDDED: Final = "embedded"
"""Owner of a stack that `tulle up` deployed."""
CLI: Final = "pulumi"
"""Owner of a stack that the Pulumi CLI deployed."""
NAMESPACE: Final = "kube-system"
"""Where inventories live: the one namespace that every cluster has and no stack makes or removes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the stack owns: a Kubernetes object, fields in one (`patch`), or what a dynamic provider made
    (`dynamic`).
    """

    key: str
    form: str
    """`object`, `patch` or `dynamic`."""
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    """Empty: an intent; the object may or may not exist."""
    protect: bool = False
    depends: tuple[str, ...] = ()
    """Keys of the entries that must outlive this one."""
    provider: str = ""
    identity: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        """The object's address (of an `object` or `patch`)."""
        return Ref(self.api_version, self.kind, self.namespace, self.name)

    @property
    def label(self) -> str:
        """How the entry is called in a display."""
        return str(self.ref) if self.form != "dynamic" else self.key.removeprefix("dynamic/")


def object_key(ref: Ref) -> str:
    """The key of an object: group and kind but not version, so that a new API version is the same object."""
    group = ref.api_version.rpartition("/")[0] or "core"
    return "/".join(part for part in (group, ref.kind, ref.namespace, ref.name) if part)


def dynamic_key(type_token: str, name: str) -> str:
    """The key of a dynamic resource, e.g. `dynamic/TrustAnchor/mesh-anchor`."""
    return f"dynamic/{type_token.rpartition(':')[2]}/{name}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All entries of a stack, its last outputs, and the version of the ConfigMap they were read from."""

    project: str
    stack: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    resource_version: str = ""

    def with_entry(self, entry: Entry) -> "Inventory":
        """The inventory after one entry was written."""
        return replace(self, entries={**self.entries, entry.key: entry})

    def without(self, keys: Iterable[str]) -> "Inventory":
        """The inventory after entries were removed."""
        gone = set(keys)
        return replace(self, entries={key: entry for key, entry in self.entries.items() if key not in gone})


def config_map_name(project: str, stack: str) -> str:
    """The ConfigMap of one stack's inventory."""
    return f"tulle-inventory-{project}-{stack}"


def address(project: str, stack: str) -> Ref:
    """Where the inventory of a stack is kept."""
    return Ref("v1", "ConfigMap", NAMESPACE, config_map_name(project, stack))


def encode(inventory: Inventory) -> Manifest:
    """The ConfigMap that carries an inventory."""
    entries = [_compact(asdict(entry)) for entry in inventory.entries.values()]
    metadata: dict[str, Any] = {
        "name": config_map_name(inventory.project, inventory.stack),
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/part-of": "tulle", "app.kubernetes.io/component": "inventory"},
    }
    if inventory.resource_version:
        metadata["resourceVersion"] = inventory.resource_version
    data = {
        "owner": EMBEDDED,
        "project": inventory.project,
        "stack": inventory.stack,
        "entries": json.dumps(entries, sort_keys=True),
        "outputs": json.dumps(inventory.outputs, sort_keys=True),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def handed_over(inventory: Inventory) -> Manifest:
    """The mark that is left of an inventory when the Pulumi CLI owns the stack."""
    data = {"owner": CLI, "project": inventory.project, "stack": inventory.stack}
    return {**encode(inventory), "data": data}


def decode(config_map: Manifest, take: bool = False) -> Inventory:
    """Read an inventory back; refuses one that another deployer owns, unless it is to be taken over, as an empty one.

    A stack that is to be taken over but is ours, or nobody's, is refused as well.
    """
    data = config_map.get("data") or {}
    name = config_map["metadata"]["name"]
    owner, stack = data.get("owner", ""), str(data.get("stack", ""))
    if take:
        if owner == CLI:
            return Inventory(data["project"], stack, resource_version=config_map["metadata"]["resourceVersion"])
        raise OwnershipError(f"stack {stack!r} here is already the deployer {owner!r}'s", "Go on with `tulle up`.")
    if owner != EMBEDDED:
        raise OwnershipError(
            f"stack {stack!r} here belongs to the deployer {owner!r} (ConfigMap {NAMESPACE}/{name})",
            "Go on with `pulumi up`; or hand the stack over as it is: `tulle handover --to embedded`.",
        )
    entries = {
        raw["key"]: Entry(**{**raw, "depends": tuple(raw.get("depends", ()))}) for raw in json.loads(data["entries"])
    }
    return Inventory(
        data["project"], data["stack"], entries, json.loads(data["outputs"]), config_map["metadata"]["resourceVersion"]
    )


def deletion_waves(doomed: Mapping[str, Entry]) -> list[list[Entry]]:
    """The order of deletion: each wave holds what no entry of a later wave needs any more. An object needs its
    namespace.
    """
    left = dict(doomed)
    waves: list[list[Entry]] = []
    while left:
        needed = {need for entry in left.values() for need in needs(entry)}
        wave = [entry for key, entry in left.items() if key not in needed]
        if not wave:  # a cycle, which no program can register; break it rather than hang
            wave = list(left.values())
        waves.append(wave)
        for entry in wave:
            del left[entry.key]
    return waves


def kept(entries: Mapping[str, Entry]) -> set[str]:
    """Keys that a `down` leaves: what is protected, and all that it stands on."""
    keep = {key for key, entry in entries.items() if entry.protect}
    frontier = list(keep)
    while frontier:
        for need in needs(entries[frontier.pop()]):
            if need in entries and need not in keep:
                keep.add(need)
                frontier.append(need)
    return keep


def needs(entry: Entry) -> set[str]:
    """Keys of what must outlive an entry."""
    implied = {object_key(Ref("v1", "Namespace", "", entry.namespace))} if entry.namespace else set()
    return {*entry.depends, *implied} - {entry.key}


def _compact(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value or key in ("key", "form")}
