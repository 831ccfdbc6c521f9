"""`tulle check`: gather the facts, have `judge` judge them, print the findings. Exit code 0 only when all is well, 2
when there are only warnings, else 1.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import click

from components.cli import exposition, judge
from components.cli.access import Access
from components.cli.judge import Finding
from components.cli.options import Globals, mesh_options
from components.cli.output import output_option, parse_seconds, print_json
from components.cli.prometheus import Prometheus, is_ready
from components.cli.target import find_target
from components.cli.workloads import is_live, is_meshed
from components.deploy.errors import ClusterError
from components.deploy.refs import Ref
from components.injector.config import CONFIG_KEY, CONFIG_MAP, ConfigError, decode_config
from components.revision.names import named
from components.trust import reports
from components.upgrade.survey import KINDS, survey
from proxy.api import labels

ISSUER_EXPIRY: Final = "tulle_identity_issuer_expiry_timestamp_seconds"
ISSUER_LIFE: Final = "tulle_identity_issuer_lifetime_seconds"
WEBHOOK_EXPIRY: Final = "tulle_injector_webhook_expiry_timestamp_seconds"
WEBHOOK_LIFE: Final = 30 * 86400.0
"""Seconds: what the injector gives its certificate."""
ROTATION: Final = "Rotate the anchor: see README, Certificates."
LEAF_EXPIRY: Final = "control_identity_cert_expiration_timestamp_seconds"
LEAF_REFRESH: Final = "control_identity_cert_refresh_timestamp_seconds"
TRIAL_POD: Final = "tulle-check-trial"
PROBED_PORT: Final = 1
"""A port at which no application listens, and which no setting leaves out of redirection."""
PROBES_AT_ONCE: Final = 16
MARKS: Final = {"ok": "√", "warning": "!", "error": "×"}
WAIT_PAUSE: Final = 2.0

Json = dict[str, Any]


@dataclass(slots=True)
class Facts:
    """What the cluster holds, asked for once."""

    version: Json
    deployments: Mapping[str, Json]
    pods: list[Json]
    namespaces: Mapping[str, Json]
    webhooks: list[Json]
    keeper: Json | None = None
    bundles: Mapping[str, str] = field(default_factory=dict)

    @property
    def meshed_namespaces(self) -> dict[str, Json]:
        return {name: item for name, item in self.namespaces.items() if _asks_for_mesh(item)}

    @property
    def revisions(self) -> list[str]:
        """Those of the mesh's control planes, its own first, which is called ''."""
        found = {(each["metadata"].get("labels") or {}).get(labels.REVISION, "") for each in self.deployments.values()}
        return ["", *sorted(found - {""})]


def _asks_for_mesh(namespace: Json) -> bool:
    metadata = namespace["metadata"]
    annotated = (metadata.get("annotations") or {}).get(labels.INJECT) == "enabled"
    terminating = (namespace.get("status") or {}).get("phase") == "Terminating"
    return (annotated or (metadata.get("labels") or {}).get(labels.MESHED_NAMESPACE) == "enabled") and not terminating


def gather(access: Access, mesh: str) -> Facts:
    """Read everything that the checks look at, but for metrics."""

    def named(items: list[Json]) -> dict[str, Json]:
        return {str(item["metadata"]["name"]): item for item in items}

    facts = Facts(
        version=access.request("GET", "/version"),
        deployments=named(access.list("apps/v1", "Deployment", mesh)),
        pods=access.list("v1", "Pod"),
        namespaces=named(access.list("v1", "Namespace")),
        webhooks=access.list("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        keeper=_keeper(access.list("apps/v1", "Deployment", "", f"{labels.COMPONENT}=trust"), mesh),
    )
    facts.bundles = {
        space: str((found.get("data") or {}).get(labels.BUNDLE_KEY, ""))
        for space in [mesh, *facts.meshed_namespaces]
        if (found := access.get(Ref("v1", "ConfigMap", space, labels.BUNDLE_CONFIG_MAP))) is not None
    }
    return facts


def _keeper(deployments: list[Json], mesh: str) -> Json | None:
    """The one that keeps this mesh's issuer, wherever its trust namespace is."""
    wanted = f"--mesh-namespace={mesh}"
    for found in deployments:
        containers = found["spec"]["template"]["spec"]["containers"]
        if any(wanted in (container.get("command") or ()) for container in containers):
            return found
    return None


def expiries(bundle: str) -> list[float]:
    """The end of each certificate in a PEM bundle; a bundle that cannot be read has none."""
    from cryptography import x509

    try:
        return [found.not_valid_after_utc.timestamp() for found in x509.load_pem_x509_certificates(bundle.encode())]
    except ValueError:
        return []


def run_checks(access: Access, mesh: str, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Every check in order: what rests on something comes after it."""
    try:
        facts = gather(access, mesh)
    except ClusterError as error:
        yield Finding("kubernetes-api", "error", error.problem, error.way_out)
        return
    yield Finding("kubernetes-api", "ok", f"{access.target} answers")
    yield judge.kubernetes_version(facts.version)
    if mesh not in facts.namespaces:
        message = f"namespace {mesh} does not exist"
        yield Finding("mesh-installed", "error", message, "Run `tulle up`, or name the mesh's with --mesh-namespace.")
        return
    for revision in facts.revisions:
        for component in judge.CONTROL_PLANE:
            name = named(component, revision)
            yield judge.component_ready(name, facts.deployments.get(name))
    yield from judge.revisions_asked_for(facts.namespaces.values(), facts.revisions)
    yield from _certificates(access, facts, mesh, clock())
    yield judge.webhook_configured(facts.webhooks, mesh)
    yield _trial(access, facts)
    yield judge.proxies_ready(facts.pods, mesh)
    yield from _current(access, facts, mesh)
    yield judge.pods_intercepted(facts.pods, facts.meshed_namespaces, mesh, _probes(access, facts.pods, mesh))
    yield from _metrics(access, facts, mesh, clock())


def _current(access: Access, facts: Facts, mesh: str) -> Iterator[Finding]:
    configs = {}
    for revision in facts.revisions:
        found = access.get(Ref("v1", "ConfigMap", mesh, named(CONFIG_MAP, revision)))
        try:
            configs[revision] = decode_config(str(((found or {}).get("data") or {}).get(CONFIG_KEY, "")).encode())
        except ConfigError:
            # Another release's, or none: what its pods would get is for that release to say.
            return
    workloads = [each for kind in KINDS.values() for each in access.list("apps/v1", kind)]
    spaces = [name for name in facts.namespaces if name not in configs[""].exempt_namespaces]
    yield judge.proxies_current(survey(facts.pods, workloads, facts.namespaces.values(), configs, spaces))


def _certificates(access: Access, facts: Facts, mesh: str, now: float) -> Iterator[Finding]:
    source = facts.bundles.get(mesh, "")
    by_hand = "replaced by a deployment, in three steps"
    yield judge.ca_life("trust-anchors", "a trust anchor", expiries(source), now, ROTATION, by_hand)
    yield judge.bundle_copies(source, facts.meshed_namespaces, facts.bundles)
    told = reports.decode(access.get(Ref("v1", "ConfigMap", mesh, reports.NAME)))
    yield judge.bundle_reports(facts.pods, told, reports.digest(source), mesh)
    yield judge.keeper_ready(facts.keeper)
    renewer = "renewed by the keeper" if facts.keeper else "renewed by whoever brings it"
    yield _reported(
        "issuer", "the issuer", lambda: _metrics_of(access, facts, "identity", mesh), ISSUER_EXPIRY, now, renewer,
        "See the log of Deployment trust, which renews it." if facts.keeper else "Bring another one.", ISSUER_LIFE,
    )  # fmt: skip
    for revision in facts.revisions:
        injector = named("injector", revision)
        yield _reported(
            named("webhook-certificate", revision), "the webhook's certificate",
            partial(_metrics_of, access, facts, injector, mesh), WEBHOOK_EXPIRY, now, "renewed by the injector",
            f"See the log of Deployment {injector}.",
        )  # fmt: skip


def _reported(
    name: str, what: str, ask: Callable[[], str], expiry: str, now: float, renewer: str, hint: str, life: str = ""
) -> Finding:
    """A certificate whose end a component of the control plane reports."""
    try:
        text = ask()
    except ClusterError as error:
        return Finding(name, "error", f"it cannot be asked for: {error.problem}", hint)
    moment = exposition.value(text, expiry)
    lifetime = exposition.value(text, life) if life else WEBHOOK_LIFE
    return judge.ca_life(name, what, [moment] if moment else [], now, hint, renewer, lifetime or 0.0)


def _metrics_of(access: Access, facts: Facts, component: str, mesh: str) -> str:
    ready = [pod for pod in facts.pods if _is_component(pod, component, mesh) and is_ready(pod)]
    if not ready:
        raise ClusterError(f"no {component} pod is ready")
    name = ready[0]["metadata"]["name"]
    return access.pod_get(mesh, name, labels.CONTROLLER_ADMIN_PORT, "/metrics").decode()


def _is_component(pod: Json, component: str, mesh: str) -> bool:
    metadata = pod["metadata"]
    return bool(metadata["namespace"] == mesh and (metadata.get("labels") or {}).get(labels.COMPONENT) == component)


def _trial(access: Access, facts: Facts) -> Finding:
    """Have the API server try a pod on: nothing is stored."""
    namespace = next(iter(facts.meshed_namespaces), "default")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": TRIAL_POD, "namespace": namespace, "annotations": {labels.INJECT: "enabled"}},
        "spec": {
            "containers": [
                {
                    "name": "trial",
                    "image": "none.invalid/trial",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "runAsNonRoot": True,
                        "runAsUser": 65534,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ]
        },
    }
    try:
        return judge.webhook_serves(namespace, access.create(pod, dry_run=True), "")
    except ClusterError as error:
        return judge.webhook_serves(namespace, None, error.problem)


def _probes(access: Access, pods: list[Json], mesh: str) -> dict[tuple[str, str], bool | None]:
    """Have the API server connect to each running meshed pod, as anybody outside it would: what answers?"""

    def probe(pod: Json) -> bool | None:
        where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        try:
            access.text(f"{where}:{PROBED_PORT}/proxy/")
        except ClusterError as error:
            return judge.redirected(error.problem)
        return True

    running = [pod for pod in pods if is_meshed(pod, mesh) and is_live(pod) and is_ready(pod)]
    with ThreadPoolExecutor(PROBES_AT_ONCE) as threads:
        found = list(threads.map(probe, running))
    names = [(str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])) for pod in running]
    return dict(zip(names, found, strict=True))


def _metrics(access: Access, facts: Facts, mesh: str, now: float) -> Iterator[Finding]:
    deployment = facts.deployments.get("prometheus")
    if deployment is None:
        yield Finding(
            "prometheus", "ok", "this mesh uses a Prometheus of its own choosing; proxies' metrics not checked"
        )
        return
    yield judge.component_ready("prometheus", deployment)
    prometheus = Prometheus(access, mesh)
    try:
        found = _by_pod(prometheus, LEAF_EXPIRY)
        refreshed = _by_pod(prometheus, LEAF_REFRESH)
    except ClusterError as error:
        yield Finding("proxies-scraped", "error", error.problem, error.way_out or "See Prometheus' log.")
        return
    live = {
        (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for pod in facts.pods
        if is_meshed(pod, mesh) and is_live(pod)
    }
    found = {key: moment for key, moment in found.items() if key in live}
    yield judge.certificates_reported(facts.pods, found, mesh, now)
    lives = {key: moment - refreshed[key] for key, moment in found.items() if key in refreshed}
    yield judge.leaf_life(found, lives, now)


def _by_pod(prometheus: Prometheus, family: str) -> dict[tuple[str, str], float]:
    samples = prometheus.query(f"max by (namespace, pod) ({family})")
    return {(s.labels.get("namespace", ""), s.labels.get("pod", "")): s.value for s in samples}


@click.command()
@click.option("--wait", default="0s", callback=parse_seconds, metavar="TIME", help="Try again until all is well.")
@output_option
@mesh_options
def check(options: Globals, wait: float, output: str) -> None:
    """Check the control plane, certificates, webhook and proxies.

    Exit code 0 when all is well, 1 for an error, 2 when there are only warnings.
    """
    access = Access(find_target(options.kubeconfig, options.context))
    deadline = time.monotonic() + wait
    while True:
        findings = list(run_checks(access, options.mesh_namespace))
        if all(finding.status == "ok" for finding in findings) or time.monotonic() >= deadline:
            break
        time.sleep(min(WAIT_PAUSE, max(0.0, deadline - time.monotonic())))
    if output == "json":
        print_json({"ok": exit_code(findings) == 0, "checks": [finding.as_dict() for finding in findings]})
    else:
        show(findings)
    raise click.exceptions.Exit(exit_code(findings))


def exit_code(findings: list[Finding]) -> int:
    """What the process ends with."""
    found = {finding.status for finding in findings}
    return 1 if "error" in found else 2 if "warning" in found else 0


def show(findings: list[Finding]) -> None:
    """One line per finding, and its hint below it where something is wrong."""
    for finding in findings:
        click.echo(f"{MARKS[finding.status]} {finding.name}: {finding.message}")
        if finding.hint and finding.status != "ok":
            click.echo(f"    {finding.hint}")
    counts = {status: sum(1 for finding in findings if finding.status == status) for status in MARKS}
    click.echo(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
