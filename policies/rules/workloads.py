"""Pure: rules about what runs: images, resources, replicas, disruption budgets, Prometheus's volume."""

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from policies.rules.model import Found, Parameters, Resource, Rule, at, document, items, unknown

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job")
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"
REVISION: Final = "tulle.io/revision"
DATA_PLANE: Final = ("linkerd-proxy", "linkerd-init", "linkerd-network-validator")
_DAYS: Final = {"ms": 1 / 86_400_000, "s": 1 / 86_400, "m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.0}
_BYTES: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}
_SIZE: Final = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
"""Prometheus's units of size are powers of two."""


def configures_injector(resource: Resource) -> bool:
    """Whether a ConfigMap is what an injector reads: the mesh's own, or a revision's."""
    name = resource.metadata.get("name")
    is_named = isinstance(name, str) and (name == "injector-config" or name.startswith("injector-config-"))
    return resource.kind == "ConfigMap" and is_named


def digest_pinned(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """Proxy images carry a digest: a tag can come to mean another image."""
    remedy = "Set images.digests (or images.refs) to name the image with @sha256:..."
    named = [
        (resource, container["name"], container.get("image"))
        for resource, container in _containers(resources)
        if container.get("name") in DATA_PLANE
    ]
    # What the injector gives to every other pod.
    for resource in resources:
        if configures_injector(resource):
            config = document(at(resource.properties, "data", "config.json"))
            named.append((resource, "every injected proxy", at(config, "proxy", "image")))
    for resource, name, image in named:
        if isinstance(image, str) and "@sha256:" not in image and not unknown(image):
            yield resource, f"{name} runs {image}", remedy


def resources_set(resources: Sequence[Resource], _: Parameters, __: datetime.datetime) -> Found:
    """Every container asks for CPU and memory and has a memory limit."""
    for resource, container in _containers(resources):
        wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
        missing = [".".join(path) for path in wanted if not at(container, "resources", *path)]
        # Init containers end before anything else runs; a native sidecar among them says that it stays.
        if missing and not (container.get("__init") and container.get("restartPolicy") != "Always"):
            remedy = "Set it, so that the scheduler knows what the pod costs and one pod cannot starve a node."
            yield resource, f"container {container.get('name')} has no {', '.join(missing)}", remedy


def replicas_and_budget(resources: Sequence[Resource], parameters: Parameters, _: datetime.datetime) -> Found:
    """The control plane survives the loss of a node, and a drain takes its pods one at a time."""
    budgets = [
        (each.metadata.get("namespace"), at(each.properties, "spec", "selector", "matchLabels"))
        for each in resources
        if each.kind == "PodDisruptionBudget"
    ]
    for resource in resources:
        name, revision = (at(resource.metadata, "labels", each) for each in (COMPONENT, REVISION))
        component = name.removesuffix(f"-{revision}") if isinstance(name, str) and revision else name
        if resource.kind != "Deployment" or component not in parameters["components"] or not _ours(resource):
            continue
        replicas = at(resource.properties, "spec", "replicas")
        replicas = 1 if replicas is None else replicas
        if not unknown(replicas) and int(replicas) < parameters["minimum"]:
            yield (
                resource,
                f"{int(replicas)} replicas, at least {parameters['minimum']}",
                "Raise the config key replicas.",
            )
        pod_labels = at(resource.properties, "spec", "template", "metadata", "labels") or {}
        covered = any(
            namespace == resource.metadata.get("namespace")
            and isinstance(selector, Mapping)
            and selector
            and all(pod_labels.get(key) == value for key, value in selector.items())
            for namespace, selector in budgets
        )
        if not covered:
            yield resource, "no PodDisruptionBudget selects its pods", "Set the config key replicas to 2 or more."


def retention_fits(resources: Sequence[Resource], parameters: Parameters, _: datetime.datetime) -> Found:
    """Prometheus ends samples before its volume is full: a full one ends Prometheus."""
    for resource, container in _containers(resources):
        flags = _flags(container)
        retention = flags.get("--storage.tsdb.retention.time")
        volume = _volume(resource, container, flags.get("--storage.tsdb.path", "/prometheus"))
        if retention is None or volume is None:
            continue
        size = flags.get("--storage.tsdb.retention.size")
        if size is not None:
            if _size(size) <= volume * parameters["share"]:
                continue
            value = f"retention.size {size} of a volume of {volume / 2**30:.1f} GiB"
        else:
            need = _days(retention) * parameters["gibibytesPerDay"] * 2**30
            if need <= volume * parameters["share"]:
                continue
            value = f"retention {retention} needs about {need / 2**30:.1f} of {volume / 2**30:.1f} GiB"
        yield (
            resource,
            value,
            "Shorten prometheus.retention, or set --storage.tsdb.retention.size below the volume's size.",
        )


def _ours(resource: Resource) -> bool:
    return bool(at(resource.metadata, "labels", PART_OF) == "tulle")


def _containers(resources: Sequence[Resource]) -> Iterator[tuple[Resource, dict[str, Any]]]:
    for resource in resources:
        if resource.kind in WORKLOADS:
            pod = at(resource.properties, "spec", "template", "spec")
            for group in ("initContainers", "containers"):
                for container in items(at(pod, group)):
                    yield resource, {**container, "__init": group == "initContainers"}


def _flags(container: Mapping[str, Any]) -> dict[str, str]:
    words = [word for key in ("command", "args") if isinstance(found := container.get(key), list) for word in found]
    return {word.split("=", 1)[0]: word.split("=", 1)[1] for word in words if isinstance(word, str) and "=" in word}


def _volume(resource: Resource, container: Mapping[str, Any], path: str) -> float | None:
    mounts = {mount.get("mountPath"): mount.get("name") for mount in items(container.get("volumeMounts"))}
    for volume in items(at(resource.properties, "spec", "template", "spec", "volumes")):
        limit = at(volume, "emptyDir", "sizeLimit")
        if volume.get("name") == mounts.get(path) and isinstance(limit, str) and not unknown(limit):
            digits = limit.rstrip("KMGTik")
            return float(digits) * _BYTES.get(limit[len(digits) :], 1)
    return None


def _days(duration: str) -> float:
    return sum(float(number) * _DAYS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def _size(text: str) -> float:
    match = re.fullmatch(r"(\d+)([KMGT]?B)", text)
    return float(match[1]) * _SIZE[match[2]] if match else float("inf")


RULES: Final = (
    Rule("proxy-image-by-digest", "Proxy images are pinned by digest.", digest_pinned),
    Rule("resources-set", "Every container has requests and a memory limit.", resources_set),
    Rule(
        "replicas-and-budget",
        "Every part of the control plane has enough replicas and a disruption budget.",
        replicas_and_budget,
        {"minimum": 2, "components": ["identity", "destination", "injector"]},
        whole=True,
    ),
    Rule(
        "prometheus-retention-fits",
        "What Prometheus keeps fits its volume.",
        retention_fits,
        {"share": 0.9, "gibibytesPerDay": 0.5},
    ),
)
