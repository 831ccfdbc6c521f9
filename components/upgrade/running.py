"""I/O: an upgrade of the data plane from end to end. What is older, in which wave it is restarted and whether to go on
is decided in `survey` and `waves`; here it is read, patched, waited for, measured and written down.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from components.cli.access import Access
from components.cli.prometheus import OtherPrometheus, Prometheus
from components.deploy import readiness, waiting
from components.deploy.cluster import Cluster
from components.deploy.errors import DeployError, NotReadyError, StoppedError
from components.deploy.refs import Ref
from components.injector.config import CONFIG_KEY, CONFIG_MAP, ConfigError, InjectorConfig, decode_config
from components.revision.names import named
from components.upgrade import record as records
from components.upgrade.record import Record
from components.upgrade.settings import Settings
from components.upgrade.survey import KINDS, Survey, Workload, barred, survey
from components.upgrade.waves import EVERYTHING, Figures, Go, Stop, Wave, judge, order, queries, waves

RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` sets on a pod template."""
CONTROL_PLANE: Final = ("identity", "destination", "injector")
MANAGER: Final = "tulle-upgrade"
"""Field manager of the one field that it sets in other people's workloads."""
SECONDS_PER_POD: Final = 60.0
LOOK_SECONDS: Final = 2.0
NOTHING: Final[Figures] = {}


class Measure(Protocol):
    """Who answers PromQL."""

    def query(self, promql: str) -> Sequence["Value"]:
        """An instant vector."""


class Value(Protocol):
    """An element of it."""

    @property
    def value(self) -> float:
        """The number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did and found."""

    restarted: tuple[Workload, ...]
    found: Survey
    """What there was at its end."""


class Upgrade:
    """The upgrade of one stack's data plane on one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        measure: Measure | None,
        report: Callable[[str], None],
        stop: threading.Event | None = None,
    ) -> None:
        """`measure` may be None where `settings.tolerance` asks for no figures; `report` gets a line at each step; once
        `stop` is set, a run ends with StoppedError.
        """
        self._cluster = cluster
        self._settings = settings
        self._measure = measure
        self._report = report
        self._stop = stop or threading.Event()
        self._address = Ref("v1", "ConfigMap", settings.mesh_namespace, records.NAME)

    def plan(self) -> tuple[list[Wave], Survey]:
        """The waves that are left; raises DeployError while the control plane is not what the stack declares."""
        found = self._survey(self._control_plane())
        return self._waves(found), found

    def accept(self) -> None:
        """Measure anew what the next waves are compared with, so that a stopped upgrade goes on."""
        found = records.decode(self._cluster.get(self._address))
        if found is not None:
            self._write(replace(found, before={}, current=""))

    def run(self) -> Outcome:
        """Restart wave by wave until no proxy is older; raises DeployError where it stops, keeping what is done."""
        configs = self._control_plane()
        restarted: list[Workload] = []
        found = self._survey(configs)
        record = self._begin(found)
        if record is None:
            return Outcome((), found)
        if record.current:
            record = self._watch(record, record.current)
        while planned := self._waves(found):
            wave = planned[0]
            if wave.namespace not in record.before:
                if not record.before and self._settings.tolerance < EVERYTHING:
                    # The control plane, and with it Prometheus, may have started a moment ago.
                    self._report(f"measuring for {self._settings.pause} s before the first wave")
                    self._rest(self._settings.pause)
                figures = self._figures(wave.namespace)
                record = self._write(replace(record, before={**record.before, wave.namespace: figures}))
            left = len(planned) - 1
            self._report(f"{wave}" + (f"; then {left} more" if left else "; the last"))
            record = self._write(replace(record, current=wave.namespace))
            for workload in wave.workloads:
                self._restart(record, workload)
            for workload in wave.workloads:
                self._wait(record, workload)
            restarted += wave.workloads
            record = self._watch(record, wave.namespace)
            found = self._survey(configs)
            stuck = set(restarted) & set(found.outdated)
            if stuck:
                odd = min(stuck)
                raise self._stopped(
                    record,
                    f"{odd} in {odd.namespace} was restarted, but its new pods do not run what its injector gives",
                    "See who changes the pods' proxy (another webhook, or an image pinned by annotation).",
                )
        self._write(replace(record, state=records.DONE, reason="", current=""))
        return Outcome(tuple(restarted), found)

    def _begin(self, found: Survey) -> Record | None:
        """The record to go on with, or a new one; None where nothing is to be done."""
        record = records.decode(self._cluster.get(self._address))
        if record is not None and record.state != records.DONE and record.image == self._settings.image:
            why = f"; it had stopped: {record.reason}" if record.reason else ""
            self._report(f"going on with the upgrade that began at {record.started}{why}")
            return self._write(replace(record, state=records.RUNNING, reason=""))
        if not self._waves(found):
            return None
        return self._write(Record(self._settings.image, datetime.now(UTC).isoformat(timespec="seconds")))

    def _control_plane(self) -> dict[str, InjectorConfig]:
        """The injectors' configurations by revision, once they are the stack's and the control planes run with them."""
        images = {"": self._settings.image, **self._settings.revisions}
        return {revision: self._configuration(revision, image) for revision, image in images.items()}

    def _configuration(self, revision: str, wanted: str) -> InjectorConfig:
        namespace, config_map = self._settings.mesh_namespace, named(CONFIG_MAP, revision)
        up = "Run `tulle up` (or `pulumi up`) first: the control plane comes before the data plane."
        found = self._cluster.get(Ref("v1", "ConfigMap", namespace, config_map))
        if found is None:
            what = f"revision {revision}" if revision else "mesh"
            raise DeployError(f"there is no {what} in namespace {namespace}", up)
        try:
            config = decode_config(found["data"][CONFIG_KEY].encode())
        except (KeyError, ConfigError) as error:
            raise DeployError(f"ConfigMap {namespace}/{config_map} cannot be read: {error}", up) from error
        if config.proxy.image != wanted:
            raise DeployError(
                f"the injector gives pods proxy {config.proxy.image}, but the stack declares {wanted}", up
            )
        for component in CONTROL_PLANE:
            name = named(component, revision)
            live = self._cluster.get(Ref("apps/v1", "Deployment", namespace, name))
            verdict = readiness.Waiting("it is not there") if live is None else readiness.judge(live)
            if not isinstance(verdict, readiness.Ready):
                raise DeployError(f"Deployment {namespace}/{name} is not ready: {verdict.reason}", up)
        return config

    def _survey(self, configs: Mapping[str, InjectorConfig]) -> Survey:
        workloads: list[dict[str, Any]] = []
        pods: list[dict[str, Any]] = []
        for namespace in self._settings.namespaces:
            pods += self._cluster.list("v1", "Pod", namespace)
            for kind in KINDS.values():
                workloads += self._cluster.list("apps/v1", kind, namespace)
        return survey(pods, workloads, self._cluster.list("v1", "Namespace"), configs, self._settings.namespaces)

    def _waves(self, found: Survey) -> list[Wave]:
        return waves(found, order(self._settings.namespaces, self._settings.first), self._settings.percent)

    def _restart(self, record: Record, workload: Workload) -> None:
        ref = _ref(workload)
        live = self._cluster.get(ref)
        if live is None:
            return
        deadline, said = time.monotonic() + waiting.READY_TIMEOUT, ""
        while reason := barred(live, self._cluster.list("policy/v1", "PodDisruptionBudget", workload.namespace)):
            if time.monotonic() > deadline:
                raise self._stopped(
                    record,
                    f"{workload} in {workload.namespace}: {reason}, for {waiting.READY_TIMEOUT:.0f} s",
                    "Give the budget room, let the rollout take fewer pods away at once, or restart the workload "
                    "yourself; then run again.",
                )
            if reason != said:
                self._report(f"  {workload}: {reason}")
                said = reason
            self._rest(LOOK_SECONDS)
        annotations = live["spec"]["template"]["metadata"].get("annotations") or {}
        if annotations.get(RESTARTED_AT) != record.started:
            # With its UID: one that was deleted meanwhile must not be made anew of this one field.
            metadata = {"name": ref.name, "namespace": ref.namespace, "uid": live["metadata"]["uid"]}
            stamp = {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: record.started}}}}}
            change = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, **stamp}
            self._cluster.apply(change, MANAGER)

    def _wait(self, record: Record, workload: Workload) -> None:
        live = self._cluster.get(_ref(workload))
        if live is None:
            return
        try:
            waiting.until_ready(
                self._cluster, live, _patience(live), self._stop, lambda why: self._report(f"  {workload}: {why}")
            )
        except NotReadyError as error:
            raise self._stopped(record, error.problem, error.way_out) from error

    def _watch(self, record: Record, namespace: str) -> Record:
        """Wait out the pause and look at the figures, until they say go or stop."""
        before, looks = record.before.get(namespace, NOTHING), 0
        while True:
            looks += 1
            self._report(f"  {namespace}: watching for {self._settings.pause} s")
            self._rest(self._settings.pause)
            after = self._figures(namespace)
            verdict = judge(before, after, self._settings.tolerance, self._settings.pause, looks)
            if isinstance(verdict, Go):
                self._report(f"  {namespace}: {verdict.note or _said(after)}")
                return self._write(replace(record, current=""))
            if isinstance(verdict, Stop):
                raise self._stopped(
                    record,
                    f"namespace {namespace}, {verdict.reason}",
                    "Find the cause (`tulle stat`), then run again: it goes on from here once success is back. "
                    "--accept goes on with things as they are.",
                )
            self._report(f"  {namespace}: {verdict.reason}; looking again")

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError("the upgrade was stopped", "Run it again to go on.")

    def _figures(self, namespace: str) -> Figures:
        if self._settings.tolerance >= EVERYTHING:
            return NOTHING
        if self._measure is None:
            raise DeployError(
                "there is no Prometheus to measure the success of a restart in",
                "Set prometheus.enabled or prometheus.url; upgrade.tolerance=100 restarts without measuring.",
            )
        found: dict[str, tuple[float, float]] = {}
        for place, (every, good) in queries(namespace, self._settings.pause).items():
            rate = sum(each.value for each in self._measure.query(every))
            if rate > 0:
                found[place] = (rate, min(1.0, sum(each.value for each in self._measure.query(good)) / rate))
        return found

    def _stopped(self, record: Record, problem: str, way_out: str) -> DeployError:
        self._write(replace(record, state=records.STOPPED, reason=problem))
        return DeployError(f"the upgrade has stopped: {problem}", way_out)

    def _write(self, record: Record) -> Record:
        live = self._cluster.get(self._address)
        if live is None:
            self._cluster.create(records.encode(record, self._settings.mesh_namespace))
        else:
            version = live["metadata"]["resourceVersion"]
            self._cluster.replace(records.encode(record, self._settings.mesh_namespace, version))
        return record


def _ref(workload: Workload) -> Ref:
    return Ref("apps/v1", KINDS[workload.kind], workload.namespace, workload.name)


def _patience(live: Mapping[str, Any]) -> float:
    """Seconds that a rollout may take: pods may be replaced one by one."""
    pods = live["spec"].get("replicas", 1)
    if live["kind"] == "DaemonSet":
        pods = (live.get("status") or {}).get("desiredNumberScheduled", 1)
    return max(waiting.READY_TIMEOUT, SECONDS_PER_POD * int(pods))


def _said(figures: Mapping[str, tuple[float, float]]) -> str:
    worst = min((share for _, share in figures.values()), default=1.0)
    return f"success {100 * worst:.1f} %, as before"


def measure_of(access: Access, settings: Settings) -> Measure | None:
    """Who is asked for figures, if anybody."""
    if settings.tolerance >= EVERYTHING or not settings.prometheus:
        return None
    if settings.prometheus_url:
        return OtherPrometheus(access, settings.prometheus_url)
    return Prometheus(access, settings.mesh_namespace)
