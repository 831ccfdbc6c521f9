"""Deleting: what the program no longer declares, or the whole stack; only what the inventory lists, in waves that
respect who needs whom.
"""

from collections.abc import Mapping

from components.deploy import manifests, waiting
from components.deploy.cluster import Cluster
from components.deploy.inventory import Entry, deletion_waves
from components.deploy.ledger import Ledger
from components.deploy.providers import Providers
from components.deploy.refs import Ref
from components.deploy.steps import Action, Reporter, Step, Tally


def delete(
    doomed: Mapping[str, Entry],
    cluster: Cluster,
    ledger: Ledger,
    providers: Providers,
    manager: str,
    reporter: Reporter,
    tally: Tally,
) -> None:
    """Delete these entries' objects, wave by wave; an entry is forgotten only when its object is gone."""
    for wave in deletion_waves(doomed):
        going: dict[Ref, str] = {}
        for entry in wave:
            reporter.began(entry.label, Action.DELETE)
            if entry.form == "dynamic":
                if entry.identity or entry.provider:
                    providers.delete(entry)
            elif entry.form == "patch":
                if cluster.get(entry.ref) is not None:
                    cluster.apply(manifests.bare(entry.ref), manager)
            else:
                uid = _deletable(cluster, entry, manager)
                if uid and cluster.delete(entry.ref, uid):
                    going[entry.ref] = uid
            reporter.boundary(entry.label, "deleting")
        waiting.until_gone(cluster, going, lambda ref, why: reporter.waits(str(ref), why))
        ledger.drop(entry.key for entry in wave)
        for entry in wave:
            tally.steps.append(Step(Action.DELETE, entry.label))
            reporter.ended(entry.label, Action.DELETE)
            reporter.boundary(entry.label, "forgotten")


def _deletable(cluster: Cluster, entry: Entry, manager: str) -> str:
    """The UID to delete: the recorded one, or, of a bare intent, that of an object we really applied; else empty."""
    live = cluster.get(entry.ref)
    if live is None:
        return ""
    uid = manifests.uid_of(live)
    if entry.uid:
        return uid if uid == entry.uid else ""
    return uid if manifests.made_here(live, manager) else ""
