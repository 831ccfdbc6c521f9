"""What `tulle check` makes of what it found: pure. Facts in, findings out, each with the way out of what is wrong."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from components.cli.output import duration
from components.cli.workloads import init_status, is_live, is_meshed, owner_of, proxy_status
from components.trust.reports import Report
from components.upgrade.survey import Survey
from proxy.api import labels

Status = Literal["ok", "warning", "error"]
Json = Mapping[str, Any]

CONTROL_PLANE: Final = ("identity", "destination", "injector")
CA_DAYS: Final = 60
"""A CA certificate with less life than this is warned about: its renewal takes people, not only machines."""
LATE_SHARE: Final = 0.3
"""What renews itself in the last third of its life is late with less than this left."""
LEAF_SHARE: Final = 0.1
"""A leaf with less of its life left than this was not renewed when it should have been (proxies renew at 70 %)."""
SETTLING_SECONDS: Final = 90
"""Pods younger than this may not have been scraped yet."""
DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result."""

    name: str
    status: Status
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def some(items: Sequence[str], most: int = 5) -> str:
    """A list in words, bounded."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def age(obj: Json, now: float) -> float:
    """Seconds since an object was made."""
    made = datetime.fromisoformat(str(obj["metadata"]["creationTimestamp"]).replace("Z", "+00:00"))
    return now - made.timestamp()


def kubernetes_version(version: Json) -> Finding:
    """Native sidecars are the default; older clusters work with classic ones."""
    name, text = "kubernetes-version", str(version.get("gitVersion"))
    digits = "".join(character for character in str(version.get("minor", "")) if character.isdigit())
    if (int(version.get("major") or 0), int(digits or 0)) >= (1, 29):
        return Finding(name, "ok", f"{text} runs native sidecars")
    return Finding(
        name,
        "warning",
        f"{text} does not run native sidecars; proxies are ordinary containers there",
        "Upgrade to Kubernetes 1.29 or newer.",
    )


def component_ready(component: str, deployment: Json | None) -> Finding:
    """A control-plane Deployment has all its replicas."""
    name = f"control-plane-{component}"
    if deployment is None:
        return Finding(name, "error", f"Deployment {component} does not exist", "Install the mesh with `tulle up`.")
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status") or {}
    ready = status.get("readyReplicas", 0)
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if wanted and ready >= wanted and current and status.get("updatedReplicas", 0) >= wanted:
        return Finding(name, "ok", f"{ready} of {wanted} replicas ready")
    where = deployment["metadata"]["namespace"]
    message = "scaled to 0" if not wanted else f"{ready} of {wanted} replicas ready"
    if wanted and ready >= wanted:
        message += ", a rollout is under way"
    return Finding(
        name, "error", message, f"See `kubectl -n {where} describe deployment {component}` and its pods' logs."
    )


def ca_life(
    name: str, what: str, moments: Iterable[float], now: float, hint: str, renewer: str, lifetime: float = 0.0
) -> Finding:
    """The remaining life of CA certificates, the first to end counting, and who renews them. `lifetime` (seconds) is
    the whole life of one that renews itself: it is late when less than LATE_SHARE is left.
    """
    left = [moment - now for moment in moments]
    if not left:
        return Finding(name, "error", f"no {what} found", hint)
    shortest = min(left)
    if shortest <= 0:
        return Finding(name, "error", f"{what} expired {duration(-shortest)} ago", hint)
    if shortest < (lifetime * LATE_SHARE if lifetime else CA_DAYS * DAY):
        return Finding(name, "warning", f"{what} expires in {duration(shortest)}; {renewer}", hint)
    each = " and ".join(duration(moment) for moment in sorted(left))
    return Finding(name, "ok", f"{what} is valid for {each}; {renewer}")


def keeper_ready(deployment: Json | None) -> Finding:
    """The process that renews the issuer, where the mesh has one: an issuer that was brought has none."""
    if deployment is None:
        return Finding("trust-keeper", "ok", "this mesh's issuer is not its own to renew")
    return replace(component_ready("trust", deployment), name="trust-keeper")


def bundle_reports(pods: Iterable[Json], reports: Mapping[str, Report], bundle: str, mesh_namespace: str) -> Finding:
    """How many proxies have told identity that they trust the bundle as it is now: what an anchor's rotation waits
    for. Nothing is wrong without one in progress.
    """
    meshed = (pod for pod in pods if is_meshed(pod, mesh_namespace) and is_live(pod))
    running = [pod for pod in meshed if "running" in (proxy_status(pod).get("state") or {})]
    told = [pod for pod in running if (r := reports.get(pod["metadata"].get("uid", ""))) and r.bundle == bundle]
    late = sorted(_title(pod) for pod in running if pod not in told)
    words = f"{len(told)} of {len(running)} proxies have reported the present trust bundle"
    return Finding("trust-reports", "ok", f"{words}; not yet: {some(late)}" if late else words)


def bundle_copies(source: str, namespaces: Iterable[str], copies: Mapping[str, str]) -> Finding:
    """Every meshed namespace has the trust bundle as the source has it."""
    name = "trust-bundle-copies"
    wrong = [space for space in namespaces if space not in copies or copies[space].strip() != source.strip()]
    if wrong:
        return Finding(
            name,
            "error",
            f"ConfigMap {labels.BUNDLE_CONFIG_MAP} is missing or differs in {some(wrong)}",
            "The injector keeps it; see its log.",
        )
    return Finding(name, "ok", f"ConfigMap {labels.BUNDLE_CONFIG_MAP} is the same in every meshed namespace")


def leaf_life(expiries: Mapping[tuple[str, str], float], lives: Mapping[tuple[str, str], float], now: float) -> Finding:
    """The remaining life of proxies' certificates. `lives` is each leaf's whole length, where it is known."""
    name = "proxy-certificates"
    hint = "Its proxy cannot renew: see its log, and `tulle check` for identity."
    expired = sorted(f"{space}/{pod}" for (space, pod), moment in expiries.items() if moment <= now)
    if expired:
        return Finding(name, "error", f"expired: {some(expired)}", hint)
    late = sorted(
        f"{space}/{pod}"
        for (space, pod), moment in expiries.items()
        if (life := lives.get((space, pod), 0)) > 0 and moment - now < life * LEAF_SHARE
    )
    if late:
        return Finding(name, "warning", f"close to expiry: {some(late)}", hint)
    if not expiries:
        return Finding(name, "ok", "no proxy has reported a certificate yet")
    (space, pod), moment = min(expiries.items(), key=lambda item: item[1])
    first = f"first to expire is {space}/{pod} in {duration(moment - now)}"
    return Finding(name, "ok", f"{len(expiries)} valid, {first}; each proxy renews its own")


def revisions_asked_for(namespaces: Iterable[Json], revisions: Collection[str]) -> Iterator[Finding]:
    """Which namespaces ask for a revision, and whether it is there; nothing where none does."""
    asked = {str(each["metadata"]["name"]): (each["metadata"].get("labels") or {}) for each in namespaces}
    asked = {name: given[labels.REVISION] for name, given in asked.items() if labels.REVISION in given}
    missing = [f"{name} ({wanted})" for name, wanted in sorted(asked.items()) if wanted not in revisions]
    if missing:
        words = "there is no revision as these namespaces ask for, so the mesh's own control plane serves them: "
        hint = f"Declare it in the stack's `revisions`, or take the label {labels.REVISION} away."
        yield Finding("revisions", "warning", words + some(missing), hint)
    elif asked:
        yield Finding(
            "revisions", "ok", f"served by revisions: {some([f'{n} ({r})' for n, r in sorted(asked.items())])}"
        )


def webhook_configured(configurations: Iterable[Json], mesh_namespace: str) -> Finding:
    """Injection is registered, and the API server has a CA to trust it by."""
    name, hint = (
        "webhook-configured",
        "The stack declares it: run `tulle up`. The injector writes caBundle: see its log.",
    )
    hooks = [hook for item in configurations for hook in item.get("webhooks") or [] if _calls(hook, mesh_namespace)]
    if not hooks:
        return Finding(name, "error", "no MutatingWebhookConfiguration calls this mesh's injector", hint)
    bare = [str(hook["name"]) for hook in hooks if not hook["clientConfig"].get("caBundle")]
    if bare:
        return Finding(name, "error", f"caBundle is empty: {some(bare)}", hint)
    policies = sorted({str(hook.get("failurePolicy", "Fail")) for hook in hooks})
    return Finding(name, "ok", f"{len(hooks)} webhooks, failurePolicy {' and '.join(policies)}, caBundle set")


def _calls(hook: Json, mesh_namespace: str) -> bool:
    service = (hook.get("clientConfig") or {}).get("service") or {}
    return bool(service.get("namespace") == mesh_namespace)


def webhook_serves(namespace: str, answer: Json | None, error: str) -> Finding:
    """A pod that was only tried on (dry run) came back with a proxy."""
    name, hint = "webhook-serves", "See the injector's log, and events in the namespace."
    if answer is None:
        return Finding(name, "error", f"a trial pod in {namespace} was refused: {error}", hint)
    spec = answer.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    if any(container.get("name") == labels.PROXY_CONTAINER for container in containers):
        return Finding(name, "ok", f"a trial pod in {namespace} came back injected")
    return Finding(name, "error", f"a trial pod in {namespace} came back without a proxy", hint)


def proxies_ready(pods: Iterable[Json], mesh_namespace: str) -> Finding:
    """Every live meshed pod's proxy is ready."""
    name = "proxies-ready"
    meshed = [pod for pod in pods if is_meshed(pod, mesh_namespace) and is_live(pod)]
    waiting = sorted(_title(pod) for pod in meshed if not proxy_status(pod).get("ready"))
    if waiting:
        hint = f"See `kubectl logs <pod> -c {labels.PROXY_CONTAINER}`."
        return Finding(name, "error", f"{len(waiting)} of {len(meshed)} not ready: {some(waiting)}", hint)
    return Finding(name, "ok", f"{len(meshed)} proxies ready")


def redirected(answer: str) -> bool | None:
    """What the API server's answer to a request at a port where nothing listens tells of a pod. Through redirection it
    is the proxy that answers (or ends the connection); without it the kernel refuses. None: the API server did not try.
    """
    if "connection refused" in answer:
        return False
    return None if '"kind":"Status"' in answer and "error trying to reach service" not in answer else True


def pods_intercepted(
    pods: Iterable[Json],
    meshed_namespaces: Mapping[str, Json],
    mesh_namespace: str,
    probes: Mapping[tuple[str, str], bool | None],
) -> Finding:
    """Every meshed pod has its redirection, and every pod of a meshed namespace is meshed or was excused.

    `probes` says of pods by namespace and name whether a connection from outside met the proxy: see `redirected`.
    """
    name, hint = (
        "pods-intercepted",
        "Restart it: `kubectl rollout restart` of its workload; see events on that workload.",
    )
    broken, outside, waiting, untried, count = [], [], [], 0, 0
    for pod in pods:
        if is_live(pod) and is_meshed(pod, mesh_namespace) and refused_by_validator(pod):
            waiting.append(f"{_title(pod)} on node {pod['spec'].get('nodeName') or '?'}")
            continue
        # A pod that has not started has nothing to intercept; whether its proxy gets ready is another check.
        if not is_live(pod) or pod["status"].get("phase") == "Pending":
            continue
        if is_meshed(pod, mesh_namespace):
            count += 1
            ended = (init_status(pod).get("state") or {}).get("terminated") or {}
            probed = probes.get((pod["metadata"]["namespace"], pod["metadata"]["name"]))
            untried += probed is None
            if ended.get("exitCode") != 0 or not proxy_status(pod) or probed is False:
                broken.append(_title(pod))
        elif pod["metadata"]["namespace"] in meshed_namespaces and not _excused(pod):
            outside.append(_title(pod))
    if waiting:
        words = f"{len(waiting)} wait for the CNI plugin, which has not set their rules: {some(sorted(waiting))}"
        return Finding(name, "error", words, "Run the Ansible role tulle.mesh.cni on these nodes; the pods then start.")
    if broken:
        return Finding(name, "error", f"labelled as meshed, but not redirected: {some(sorted(broken))}", hint)
    if outside:
        return Finding(name, "error", f"in a meshed namespace without a proxy: {some(sorted(outside))}", hint)
    words = f"{count} meshed pods redirect their traffic through their proxies"
    return Finding(name, "ok", f"{words} ({untried} by their own word: not tried from outside)" if untried else words)


def refused_by_validator(pod: Json) -> bool:
    """Whether a pod does not start because no CNI plugin has redirected it: its validator ended so, and is to be tried
    again.
    """
    status = init_status(pod)
    ended = [(status.get(when) or {}).get("terminated") or {} for when in ("state", "lastState")]
    refused = [each for each in ended if each.get("exitCode") is not None]
    return bool(refused) and refused[0]["exitCode"] == labels.EXIT_NOT_REDIRECTED


def _excused(pod: Json) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return annotations.get(labels.INJECT) == "disabled" or bool(pod["spec"].get("hostNetwork"))


def proxies_current(found: Survey) -> Finding:
    """Which workloads run other proxies than their pods would get now: a fact until they are restarted, no fault."""
    name, older = "proxies-current", [f"{each.namespace}/{each}" for each in found.outdated]
    older += [f"{each.namespace}/{each.owner}" for each in found.left]
    if not older:
        return Finding(name, "ok", "every proxy is the one that its pod would get now")
    words = f"{len(older)} workloads run other proxies than their pods would get now (`tulle upgrade`)"
    return Finding(name, "ok", f"{words}: {some(older)}")


def certificates_reported(
    pods: Iterable[Json], expiries: Mapping[tuple[str, str], float], mesh_namespace: str, now: float
) -> Finding:
    """Prometheus has seen every proxy that is old enough."""
    name = "proxies-scraped"
    missing = sorted(
        _title(pod)
        for pod in pods
        if is_meshed(pod, mesh_namespace)
        and is_live(pod)
        and age(pod, now) > SETTLING_SECONDS
        and (pod["metadata"]["namespace"], pod["metadata"]["name"]) not in expiries
    )
    if missing:
        return Finding(name, "error", f"Prometheus has no metrics of {some(missing)}", "See Prometheus' /targets page.")
    return Finding(name, "ok", "Prometheus has the metrics of every meshed pod")


def _title(pod: Json) -> str:
    kind, owner = owner_of(pod)
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    return name if kind == "pod" else f"{name} ({kind} {owner})"
