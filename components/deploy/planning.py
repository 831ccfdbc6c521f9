"""The plan pass: what a deployment would do, found out by server-side dry runs; nothing is changed."""

from typing import Any

from components.deploy import custom, manifests
from components.deploy.examining import Examiner
from components.deploy.inventory import kept
from components.deploy.providers import PROVIDER_KEY
from components.deploy.refs import Ref
from components.deploy.registration import Outcome, Registration
from components.deploy.steps import Action, Step, Tally


class Planner:
    """Answers the program in a preview: with dry-run objects, and with nothing where only applying can tell."""

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner
        self.tally = Tally()

    def register(self, registration: Registration) -> Outcome:
        """Plan one resource."""
        if registration.dynamic:
            return self._dynamic(registration)
        finding = self._examiner.object(registration)
        self.tally.steps.append(finding.step)
        secret = frozenset({"data", "stringData"}) if finding.manifest["kind"] == "Secret" else frozenset()
        shown = finding.planned if finding.live is not None and finding.planned is not None else finding.manifest
        return Outcome(manifests.identity_of(Ref.of(finding.manifest)), manifests.outputs_of(shown), secret)

    def stop(self) -> None:
        """A plan waits for nothing."""

    def finish(self, outputs: dict[str, Any]) -> None:
        """Outputs of a preview are of no use to anyone."""

    def complete(self) -> Tally:
        """The plan with its deletions; only once the program has ended is it known what it no longer declares."""
        entries = self._examiner.ledger.entries
        stale = {key: entry for key, entry in entries.items() if key not in self._examiner.registered}
        notes = {**custom.in_use(stale, self._examiner.cluster), **dict.fromkeys(kept(entries), "protected")}
        for key, entry in stale.items():
            action = Action.KEEP if key in notes else Action.DELETE
            self.tally.steps.append(Step(action, entry.label, note=notes.get(key, "")))
        return self.tally

    def _dynamic(self, registration: Registration) -> Outcome:
        finding = self._examiner.dynamic(registration)
        self.tally.steps.append(finding.step)
        inputs = {key: value for key, value in registration.inputs.items() if key != PROVIDER_KEY}
        entry = self._examiner.ledger.entries.get(finding.former or finding.key)
        if finding.step.action is Action.SAME and entry is not None:
            return Outcome(entry.identity, {**inputs, **entry.outputs})
        return Outcome(entry.identity if entry else "", inputs)
