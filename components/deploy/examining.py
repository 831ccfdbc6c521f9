"""I/O: compare one registered resource with the cluster; shared by the planner and the applier, so that both decide
alike.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.deploy import inventory, manifests, wire
from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError, OwnershipError
from components.deploy.inventory import Entry
from components.deploy.ledger import Ledger
from components.deploy.manifests import Change
from components.deploy.providers import Providers
from components.deploy.refs import Manifest, Ref
from components.deploy.registration import Registration
from components.deploy.steps import Action, Step

NOT_VALIDATED = "new, not validated: its namespace or kind does not exist yet"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the cluster has of one resource, and what applying it would do."""

    key: str
    step: Step
    manifest: Manifest
    live: Manifest | None = None
    planned: Manifest | None = None
    """The API server's answer to the dry run; None where it could not be asked."""
    former: str = ""
    """Key under which a dynamic resource that has moved in the program is still recorded."""


class Examiner:
    """Knows what is recorded, what is live and what is wanted; changes nothing."""

    def __init__(self, cluster: Cluster, ledger: Ledger, providers: Providers, manager: str, adopt: bool) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.providers = providers
        self.manager = manager
        self._adopt = adopt
        self._keys: dict[str, str] = {}
        self._moved: set[str] = set()
        self._lock = threading.Lock()

    @property
    def registered(self) -> frozenset[str]:
        """Keys of everything the program registered in this pass."""
        return frozenset({*self._keys.values(), *self._moved})

    def key_of(self, urn: str) -> str | None:
        """The inventory key of a resource registered earlier in this pass."""
        return self._keys.get(urn)

    def depends(self, registration: Registration) -> tuple[str, ...]:
        """The keys of what a resource waits for."""
        return tuple(sorted({key for urn in registration.depends if (key := self.key_of(urn))}))

    def object(self, registration: Registration) -> Finding:
        """A Kubernetes object against the live one, by a server-side dry run."""
        manifest = manifests.manifest_of(registration.inputs)
        ref = Ref.of(manifest)
        if not ref.name:
            raise DeployError(
                f"resource {registration.name} ({registration.type}) has no metadata.name",
                "Name it: the embedded deployer, unlike the Pulumi CLI, makes no names up.",
            )
        key = inventory.object_key(ref)
        self._claim(key, registration.urn)
        live = self.cluster.get(ref)
        patch = registration.type.endswith("Patch")
        if live is not None and not patch:
            self._check_owner(ref, key, live)
        if live is None and patch:
            raise DeployError(f"{ref} does not exist, so it cannot be patched", "Create it first, or correct its name.")
        action = Action.CREATE if live is None else Action.UPDATE
        if wire.has_unknown(manifest):
            changes = () if live is None else _partly(live, manifest)
            note = "some values known after apply"
            return Finding(key, Step(action, str(ref), changes, note), manifest, live)
        try:
            planned = self.cluster.apply(manifest, self.manager, dry_run=True)
        except ClusterError as error:
            if error.namespace_absent or error.kind_absent:
                return Finding(key, Step(Action.CREATE, str(ref), note=NOT_VALIDATED), manifest, live)
            raise _refused(ref, error) from error
        if live is None:
            return Finding(key, Step(Action.CREATE, str(ref)), manifest, None, planned)
        changes = tuple(manifests.changes(live, planned))
        if live["metadata"].get("deletionTimestamp"):
            return Finding(
                key, Step(Action.CREATE, str(ref), note="after the one being deleted is gone"), manifest, live, planned
            )
        return Finding(key, Step(Action.UPDATE if changes else Action.SAME, str(ref), changes), manifest, live, planned)

    def dynamic(self, registration: Registration) -> Finding:
        """A dynamic resource against what was recorded of it, by its own provider."""
        key = inventory.dynamic_key(registration.type, registration.name)
        self._claim(key, registration.urn)
        label = key.removeprefix("dynamic/")
        former = self._formerly(key, registration)
        entry = self.ledger.entries.get(former or key)
        if entry is None or not entry.identity:
            return Finding(key, Step(Action.CREATE, label), registration.inputs)
        if wire.has_unknown(registration.inputs):
            step = Step(Action.UPDATE, label, note="some values known after apply")
            return Finding(key, step, registration.inputs, former=former)
        differs = self.providers.differs(registration, entry)
        step = Step(Action.UPDATE if differs else Action.SAME, label)
        return Finding(key, step, registration.inputs, former=former)

    def _formerly(self, key: str, registration: Registration) -> str:
        """The key of an earlier name, if it is recorded under that one alone; then nothing is to be deleted there."""
        if key in self.ledger.entries:
            return ""
        keys = (inventory.dynamic_key(registration.type, name) for name in registration.former)
        found = next((each for each in keys if each in self.ledger.entries and each not in self._keys.values()), "")
        if found:
            with self._lock:
                self._moved.add(found)
        return found

    def _claim(self, key: str, urn: str) -> None:
        with self._lock:
            if key in self._keys.values():
                raise DeployError(f"the program declares {key} twice ({urn})", "Remove one of the two, or rename it.")
            self._keys[urn] = key

    def _check_owner(self, ref: Ref, key: str, live: Manifest) -> None:
        entry = self.ledger.entries.get(key)
        recorded = entry is not None and (
            entry.uid == manifests.uid_of(live) if entry.uid else manifests.made_here(live, self.manager)
        )
        if recorded or self._adopt or manifests.managed_by(live, self.manager):
            return
        raise OwnershipError(
            f"{ref} exists already and was not made by this stack",
            "Delete it, give it another name in the stack's config, or take it over as it is with --adopt.",
        )


def completed(
    finding: Finding, entry: Entry | None, live: Manifest, registration: Registration, depends: tuple[str, ...]
) -> Entry:
    """The inventory entry of an object that exists."""
    ref = Ref.of(finding.manifest)
    return Entry(
        key=finding.key,
        form="patch" if registration.type.endswith("Patch") else "object",
        api_version=ref.api_version,
        kind=ref.kind,
        namespace=ref.namespace,
        name=ref.name,
        uid=manifests.uid_of(live),
        protect=registration.protect,
        depends=depends,
    )


def _partly(live: Manifest, manifest: Mapping[str, Any]) -> tuple[Change, ...]:
    """The differences that can be seen in the fields we declare, before all values are known."""
    return tuple(change for change in manifests.changes(live, _overlaid(live, manifest)) if change.after is not None)


def _overlaid(live: Any, wanted: Any) -> Any:
    if isinstance(live, Mapping) and isinstance(wanted, Mapping):
        return {**live, **{key: _overlaid(live.get(key), value) for key, value in wanted.items()}}
    return live if wire.has_unknown(wanted) and not isinstance(wanted, Mapping | list) and live is not None else wanted


def _refused(ref: Ref, error: ClusterError) -> DeployError:
    if "field is immutable" in error.problem or "may not change" in error.problem:
        return DeployError(
            f"{ref} cannot be changed in place: {error.problem}",
            f"Delete it (`kubectl delete {ref.kind.lower()} {ref.name}`) and run again; Pulumi's CLI replaces it.",
        )
    return ClusterError(f"{ref}: {error.problem}", error.way_out, error.status, error.reason)
