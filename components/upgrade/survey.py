"""Which workloads run proxies other than the ones their pods would get now: pure. Pods, workloads, namespaces and
disruption budgets in; what can be restarted, and what cannot and why, out.

A proxy counts as older when its image differs from the one that the injector would give the same pod template today, or
when it is served by another control plane: annotations that pin a version are honoured, and a control plane that went
back takes its proxies back too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from components.cli.workloads import is_live, is_meshed, owner_of
from components.injector import decide
from components.injector.config import InjectorConfig
from components.injector.patch import Owner, component_identity
from components.revision.names import revision_of, serving
from proxy.api import labels

Object = Mapping[str, Any]

KINDS: Final[Mapping[str, str]] = {
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "daemonset": "DaemonSet",
}
"""What a rollout restarts, by the name that labels use: all of API group apps/v1."""


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """A workload that a change of its pod template restarts."""

    namespace: str
    kind: str
    """A key of KINDS."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Left:
    """Pods with older proxies that no wave restarts."""

    namespace: str
    owner: str
    reason: str
    """What they are, and what a person may do."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The state of some namespaces' proxies."""

    outdated: tuple[Workload, ...]
    """In order of namespace, kind and name."""
    sizes: Mapping[str, int]
    """Meshed workloads that can be restarted at all, outdated or not, by namespace."""
    left: tuple[Left, ...]


def survey(
    pods: Iterable[Object],
    workloads: Iterable[Object],
    namespaces: Iterable[Object],
    configs: Mapping[str, InjectorConfig],
    only: Sequence[str],
) -> Survey:
    """Look at the pods of the namespaces in `only`. `configs` has an injector's configuration for each revision, that
    of the mesh's own control plane under ''."""
    spaces = {str(each["metadata"]["name"]): each for each in namespaces}
    templates = {_key(each): each for each in workloads}
    by_owner: dict[Workload, list[Object]] = defaultdict(list)
    mesh_namespace = configs[""].mesh_namespace
    for pod in pods:
        namespace = str(pod["metadata"]["namespace"])
        if namespace in only and is_meshed(pod, mesh_namespace) and is_live(pod):
            kind, name = owner_of(pod)
            by_owner[Workload(namespace, kind, name)].append(pod)
    outdated: list[Workload] = []
    left: list[Left] = []
    sizes: dict[str, int] = {}
    for key in sorted(by_owner):
        live = templates.get(key)
        template = by_owner[key][0] if live is None else live["spec"]["template"]
        space = spaces.get(key.namespace, {})
        config = configs[revision_of(space, configs)]
        wanted = _wanted(template, live is None, space, key, config)
        reason = wanted.message if isinstance(wanted, decide.Skip | decide.Refuse) else ""
        reason = reason or (_unmoved(live) if live is not None else "")
        restartable = live is not None and not reason
        sizes[key.namespace] = sizes.get(key.namespace, 0) + restartable
        image = wanted.settings.image if isinstance(wanted, decide.Inject) else config.proxy.image
        if all(proxy_image(pod) == image and serving(pod) == _serving(config) for pod in by_owner[key]):
            continue
        if restartable:
            outdated.append(key)
        else:
            left.append(Left(key.namespace, str(key), reason or _alone(key.kind)))
    return Survey(tuple(outdated), {name: size for name, size in sizes.items() if size}, tuple(left))


def _serving(config: InjectorConfig) -> str:
    """The destination that proxies of a control plane ask."""
    return config.proxy.extra_env.get("DESTINATION_SVC_NAME") or component_identity(config, "destination")


def proxy_image(pod: Object) -> str:
    """The image of a pod's (or a template's) proxy as its spec names it; empty without one."""
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return next((str(each["image"]) for each in containers if each["name"] == labels.PROXY_CONTAINER), "")


def barred(workload: Object, budgets: Iterable[Object]) -> str:
    """Why a restart has to wait for a PodDisruptionBudget, or nothing.

    A rollout does not ask budgets by itself (Kubernetes counts it as no eviction), so a restart that takes ready pods
    away first begins only when every budget over them has room for as many.
    """
    taken = _taken_away(workload)
    pod_labels = workload["spec"]["template"]["metadata"].get("labels") or {}
    for budget in budgets:
        if budget["metadata"]["namespace"] != workload["metadata"]["namespace"]:
            continue
        if taken and selects((budget.get("spec") or {}).get("selector"), pod_labels):
            allowed = int((budget.get("status") or {}).get("disruptionsAllowed", 0))
            if allowed < taken:
                return (
                    f"its rollout may take {taken} ready pods away at once, and PodDisruptionBudget "
                    f"{budget['metadata']['name']} allows {allowed}"
                )
    return ""


def selects(selector: Mapping[str, Any] | None, given: Mapping[str, str]) -> bool:
    """Whether a label selector (policy/v1: an empty one selects all, none selects nothing) matches these labels."""
    if selector is None:
        return False
    if any(given.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or []:
        key, operator, values = each["key"], each["operator"], each.get("values") or []
        held = {
            "In": given.get(key) in values and key in given,
            "NotIn": given.get(key) not in values or key not in given,
            "Exists": key in given,
            "DoesNotExist": key not in given,
        }[operator]
        if not held:
            return False
    return True


def _key(live: Object) -> Workload:
    return Workload(str(live["metadata"]["namespace"]), str(live["kind"]).lower(), str(live["metadata"]["name"]))


def _wanted(
    template: Object, injected: bool, namespace: Object, key: Workload, config: InjectorConfig
) -> decide.Decision:
    """What the injector would do with the next pod; for a pod without a workload, with the pod that it was."""
    spec = dict(template["spec"])
    if injected:
        for field in ("containers", "initContainers"):
            spec[field] = [each for each in spec.get(field) or [] if each["name"] not in decide.SIDECARS]
    metadata = namespace.get("metadata") or {}
    place = decide.Namespace(key.namespace, metadata.get("annotations") or {}, metadata.get("labels") or {})
    pod = {"metadata": template.get("metadata") or {}, "spec": spec}
    return decide.decide(pod, place, config, native_supported=True, owner=Owner(key.kind, key.name))


def _unmoved(live: Object) -> str:
    """Why a changed template would not bring all pods of a workload anew, or nothing."""
    spec = live["spec"]
    if spec.get("paused"):
        return "its rollouts are paused; resume them, then run again"
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete; delete its pods yourself"
    if int((strategy.get("rollingUpdate") or {}).get("partition") or 0) > 0:
        return "its rolling update has a partition; set it to 0, then run again"
    return ""


def _alone(kind: str) -> str:
    if kind == "pod":
        return "a pod that no workload would make anew; delete and create it yourself"
    if kind in ("job", "cronjob"):
        return "a Job is not restarted; its next run has the new proxy"
    return f"a {kind} is not restarted by a change of its template; restart it by its own means"


def _taken_away(workload: Object) -> int:
    """How many ready pods a rollout may take away before others are ready."""
    spec, kind = workload["spec"], workload["kind"]
    if kind == "Deployment":
        replicas = int(spec.get("replicas", 1))
        strategy = spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return replicas
        return _resolve((strategy.get("rollingUpdate") or {}).get("maxUnavailable", "25%"), replicas, up=False)
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if kind == "StatefulSet":
        return _resolve(rolling.get("maxUnavailable", 1), int(spec.get("replicas", 1)), up=False) or 1
    wanted = int((workload.get("status") or {}).get("desiredNumberScheduled", 0))
    return _resolve(rolling.get("maxUnavailable", 1), wanted, up=True)


def _resolve(value: int | str, of: int, *, up: bool) -> int:
    """An IntOrString of Kubernetes as a number; a percentage is rounded as its controller rounds it."""
    text = str(value)
    if not text.endswith("%"):
        return int(text)
    parts = int(text[:-1]) * of
    return -(-parts // 100) if up else parts // 100
