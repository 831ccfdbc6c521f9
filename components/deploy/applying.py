"""The apply pass: each resource is checked again with its resolved inputs, recorded as an intent, applied, recorded,
and waited for.
"""

import threading
from dataclasses import replace
from typing import Any

from components.deploy import manifests, waiting, wire
from components.deploy.errors import DeployError
from components.deploy.examining import Examiner, Finding, completed
from components.deploy.inventory import Entry
from components.deploy.providers import PROVIDER_KEY
from components.deploy.refs import Manifest, Ref
from components.deploy.registration import Outcome, Registration
from components.deploy.steps import Action, Reporter, Tally


class Applier:
    """Answers the program in a deployment: with live objects that are ready."""

    def __init__(self, examiner: Examiner, reporter: Reporter, secrets: wire.Secrets) -> None:
        self._examiner = examiner
        self._cluster = examiner.cluster
        self._ledger = examiner.ledger
        self._reporter = reporter
        self._secrets = secrets
        self._stop = examiner.providers.stopping = threading.Event()
        self.tally = Tally()
        self.outputs: dict[str, Any] = {}

    def register(self, registration: Registration) -> Outcome:
        """Apply one resource and wait until it is ready; the first failure ends the waits of all others."""
        try:
            return self._dynamic(registration) if registration.dynamic else self._object(registration)
        except BaseException:
            self._stop.set()
            raise

    def stop(self) -> None:
        """End all waits; what is applied stays applied and recorded."""
        self._stop.set()

    def finish(self, outputs: dict[str, Any]) -> None:
        """Keep the stack's outputs until the program has ended."""
        self.outputs = outputs

    def _object(self, registration: Registration) -> Outcome:
        if wire.has_unknown(registration.inputs):
            raise DeployError(f"{registration.name} depends on a value that nothing in this deployment supplies")
        finding = self._examiner.object(registration)
        ref, action = Ref.of(finding.manifest), finding.step.action
        if finding.live is not None and finding.live["metadata"].get("deletionTimestamp"):
            waiting.until_gone(
                self._cluster, {ref: manifests.uid_of(finding.live)}, lambda r, why: self._reporter.waits(str(r), why)
            )
        live = (
            finding.live if action is Action.SAME and finding.live is not None else self._apply(finding, registration)
        )
        self._ledger.write(completed(finding, None, live, registration, self._examiner.depends(registration)))
        if action is not Action.SAME:
            self._reporter.boundary(str(ref), "recorded")
        timeout = registration.timeout or waiting.READY_TIMEOUT
        live = waiting.until_ready(
            self._cluster, live, timeout, self._stop, lambda why: self._reporter.waits(str(ref), why)
        )
        self._end(finding)
        secret = frozenset({"data", "stringData"}) if ref.kind == "Secret" else frozenset()
        return Outcome(manifests.identity_of(ref), manifests.outputs_of(live), secret)

    def _apply(self, finding: Finding, registration: Registration) -> Manifest:
        ref = Ref.of(finding.manifest)
        recorded = self._ledger.entries.get(finding.key)
        uid = recorded.uid if recorded else ""
        bare = {**manifests.bare(ref), "metadata": {**manifests.bare(ref)["metadata"], "uid": uid}}
        self._reporter.began(str(ref), finding.step.action)
        self._ledger.write(completed(finding, recorded, bare, registration, self._examiner.depends(registration)))
        self._reporter.boundary(str(ref), "intended")
        live = self._cluster.apply(finding.manifest, self._examiner.manager)
        self._reporter.boundary(str(ref), "applied")
        return live

    def _dynamic(self, registration: Registration) -> Outcome:
        finding = self._examiner.dynamic(registration)
        if finding.former:
            self._ledger.move(finding.former, finding.key)
        recorded = self._ledger.entries.get(finding.key)
        inputs = {key: value for key, value in registration.inputs.items() if key != PROVIDER_KEY}
        intent = Entry(
            key=finding.key,
            form="dynamic",
            protect=registration.protect,
            depends=self._examiner.depends(registration),
            provider=registration.inputs[PROVIDER_KEY],
            identity=recorded.identity if recorded else "",
            inputs=self._secrets.hide(inputs),
            outputs=dict(recorded.outputs) if recorded else {},
        )
        if finding.step.action is Action.SAME:
            self._ledger.write(replace(intent, inputs=recorded.inputs if recorded else intent.inputs))
            self._end(finding)
            return Outcome(intent.identity, {**inputs, **intent.outputs})
        label = finding.step.label
        self._reporter.began(label, finding.step.action)
        # Until an update is done the record keeps its old inputs: a kill in between must show as a difference again.
        self._ledger.write(replace(intent, inputs=recorded.inputs) if recorded and recorded.identity else intent)
        self._reporter.boundary(label, "intended")
        providers = self._examiner.providers
        if recorded is not None and recorded.identity:
            identity, outputs = recorded.identity, providers.update(registration, recorded)
        else:
            identity, outputs = providers.create(registration)
        self._reporter.boundary(label, "applied")
        self._ledger.write(replace(intent, identity=identity, outputs=self._secrets.hide(outputs)))
        self._reporter.boundary(label, "recorded")
        self._end(finding)
        return Outcome(identity, {**inputs, **outputs})

    def _end(self, finding: Finding) -> None:
        self.tally.steps.append(finding.step)
        self._reporter.ended(finding.step.label, finding.step.action)
