"""One deployment from end to end: which cluster, plan, apply, prune, outputs; and its reverse."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from components.deploy import custom, guarding, inventory, program, teardown, wire
from components.deploy.applying import Applier
from components.deploy.cluster import Cluster
from components.deploy.errors import DeployError
from components.deploy.examining import Examiner
from components.deploy.ledger import Ledger
from components.deploy.monitor import Monitor
from components.deploy.planning import Planner
from components.deploy.project import Project, StackConfig
from components.deploy.providers import Providers
from components.deploy.refs import Target
from components.deploy.registration import Declared, Handler
from components.deploy.steps import Action, Reporter, Silent, Step, Tally
from components.deploy.target import CONTEXT_KEY, KUBECONFIG_KEY
from policies.rules.model import Violation
from proxy.api import labels

MESH_NAMESPACE_KEY = "meshNamespace"


@dataclass(frozen=True, slots=True)
class Result:
    """What was done, and the stack's outputs."""

    tally: Tally
    outputs: Mapping[str, Any]


class Deployment:
    """A stack of a project on one cluster."""

    def __init__(
        self,
        project: Project,
        stack: str,
        config: StackConfig,
        target: Target,
        reporter: Reporter | None = None,
        adopt: bool = False,
        take: bool = False,
    ) -> None:
        named = {CONTEXT_KEY: target.context, KUBECONFIG_KEY: target.kubeconfig}
        self._project = project
        self._stack = stack
        self._config = replace(config, values={**config.values, **named})
        self._target = target
        self._reporter = reporter or Silent()
        self._adopt = adopt or take
        self._take = take
        self.secrets = wire.Secrets()
        for key in config.secret_keys:
            self.secrets.add(config.values[key])
        self._cluster = Cluster(target)
        self._manager = f"tulle-{project.name}-{stack}"
        self._providers = Providers(self._config.values, project.name)
        self._judged: list[Violation] | None = None

    def close(self) -> None:
        """Give the connections back."""
        self._cluster.close()

    def plan(self) -> Tally:
        """What `up` would do, and what it breaks of the project's policies."""
        planner = Planner(self._examiner(self._ledger()))
        declared = self._run(planner, dry_run=True)
        tally = planner.complete()
        tally.violations = guarding.violations(self._project.root, self._stack, declared, self._plain())
        self._judged = tally.violations
        return tally

    def up(self) -> Result:
        """Apply the program, then prune what it no longer declares; nothing, if it breaks a mandatory policy."""
        if self._judged is None and guarding.guarded(self._project.root):
            self.plan()
        guarding.refuse(self._judged or ())
        ledger = self._ledger()
        examiner = self._examiner(ledger)
        applier = Applier(examiner, self._reporter, self.secrets)
        self._run(applier, dry_run=False)
        stale = {key: entry for key, entry in ledger.entries.items() if key not in examiner.registered}
        notes = {**custom.in_use(stale, self._cluster), **dict.fromkeys(inventory.kept(ledger.entries), "protected")}
        for key in sorted(notes.keys() & stale.keys()):
            applier.tally.steps.append(Step(Action.KEEP, stale[key].label, note=notes[key]))
        doomed = {key: entry for key, entry in stale.items() if key not in notes}
        self._delete(doomed, ledger, applier.tally)
        ledger.write_outputs(applier.outputs)
        self._take = False
        return Result(applier.tally, applier.outputs)

    def plan_down(self) -> Tally:
        """What `down` would do."""
        ledger = self._ledger()
        keep = inventory.kept(ledger.entries)
        return Tally(
            [
                Step(Action.KEEP, entry.label, note="protected") if key in keep else Step(Action.DELETE, entry.label)
                for key, entry in ledger.entries.items()
            ]
        )

    def refuse_injected(self) -> None:
        """Raise while pods in namespaces that the stack does not take with it have proxies of its mesh."""
        entries = self._ledger().entries
        gone = {entry.name for entry in entries.values() if entry.kind == "Namespace" and entry.form == "object"}
        mesh = self._config.values.get(f"{self._project.name}:{MESH_NAMESPACE_KEY}", "")
        if not entries or not mesh:
            return
        pods = self._cluster.list("v1", "Pod", "", f"{labels.CONTROL_PLANE_NAMESPACE}={mesh}")
        titles = (f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods)
        held = sorted(title for title in titles if title.partition("/")[0] not in gone)
        if held:
            shown = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
            raise DeployError(
                f"{len(held)} pods that this stack does not own are still in its mesh: {shown}",
                "Remove the annotation linkerd.io/inject from them and restart them, or go on with --leave-injected.",
            )

    def down(self) -> Result:
        """Delete all that the inventory lists but what is protected."""
        ledger, tally = self._ledger(), Tally()
        keep = inventory.kept(ledger.entries)
        tally.steps += [Step(Action.KEEP, ledger.entries[key].label, note="protected") for key in sorted(keep)]
        self._delete({key: entry for key, entry in ledger.entries.items() if key not in keep}, ledger, tally)
        if keep:
            ledger.write_outputs({})
        elif ledger.existed:
            ledger.remove()
        return Result(tally, {})

    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the last `up`."""
        ledger = self._ledger()
        if not ledger.existed:
            raise DeployError(
                f"stack {self._stack!r} is not deployed on {self._target}", f"Deploy it: tulle up --stack {self._stack}"
            )
        return ledger.outputs

    def release(self) -> int:
        """Leave the stack to the Pulumi CLI as it is: give its fields up, so that the CLI's own field manager meets no
        conflict, then the mark; how many objects there are. To be done when nothing is left to deploy.
        """
        ledger = self._ledger()
        held = [entry for entry in ledger.entries.values() if entry.form != "dynamic"]
        for entry in held:
            self._cluster.disown(entry.ref, self._manager)
        ledger.hand_over()
        return len(held)

    def _ledger(self) -> Ledger:
        return Ledger(self._cluster, self._project.name, self._stack, self._take)

    def _examiner(self, ledger: Ledger) -> Examiner:
        return Examiner(self._cluster, ledger, self._providers, self._manager, self._adopt)

    def _plain(self) -> dict[str, str]:
        return {key: value for key, value in self._config.values.items() if key not in self._config.secret_keys}

    def _run(self, handler: Handler, dry_run: bool) -> list[Declared]:
        project, values = self._project, self._config.values
        monitor = Monitor(project.name, self._stack, self._target, self.secrets, handler)
        program.run(project.main, project.name, self._stack, values, self._config.secret_keys, monitor, dry_run)
        return monitor.declared

    def _delete(self, doomed: Mapping[str, inventory.Entry], ledger: Ledger, tally: Tally) -> None:
        if doomed:
            teardown.delete(doomed, self._cluster, ledger, self._providers, self._manager, self._reporter, tally)
