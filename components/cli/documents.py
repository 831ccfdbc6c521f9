"""Adding workloads in a YAML stream to the mesh, and taking them out: pure. Text in, text and a summary out.

Documents that are not changed come out as they came in, byte for byte, comments included.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import yaml

from components.injector.patch import Owner
from proxy.api import labels

Json = dict[str, Any]
TEMPLATES: Final = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
"""Kind -> where its pod template stands."""
_SEPARATOR: Final = re.compile(r"(?m)^---(?=\s|$)")
_INJECTED_VOLUMES: Final = frozenset({labels.TOKEN_VOLUME, labels.BUNDLE_VOLUME, "linkerd-proxy-init-xtables-lock"})
_INJECTED_CONTAINERS: Final = frozenset({labels.PROXY_CONTAINER, labels.INIT_CONTAINER, labels.VALIDATOR_CONTAINER})


class DocumentError(ValueError):
    """The stream cannot be read; the message says which document and why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object. `document` is None when the object stays as it is."""

    what: str
    message: str
    document: Json | None = None
    failed: bool = False


Change = Callable[[Json], Outcome]


def rewrite(text: str, change: Change) -> tuple[str, list[Outcome]]:
    """Apply `change` to every object of a stream, also inside a List."""
    outcomes: list[Outcome] = []
    pieces: list[str] = []
    for number, piece in enumerate(split(text), start=1):
        try:
            document = yaml.safe_load(piece)
        except yaml.YAMLError as error:
            raise DocumentError(f"document {number} is not YAML: {error}") from error
        if not isinstance(document, dict) or "kind" not in document:
            pieces.append(piece)
            continue
        changed, seen = _rewrite_one(document, change)
        outcomes += seen
        pieces.append(piece if changed is None else f"---\n{dump(changed)}")
    return "".join(pieces), outcomes


def split(text: str) -> Iterator[str]:
    """The documents of a stream, each with the separator before it; together they are the whole text."""
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start() > 0), len(text)]
    for begin, end in pairwise(starts):
        if begin < end:
            yield text[begin:end]


def _rewrite_one(document: Json, change: Change) -> tuple[Json | None, list[Outcome]]:
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        results = [
            _rewrite_one(item, change) for item in document["items"] if isinstance(item, dict) and "kind" in item
        ]
        if len(results) != len(document["items"]) or all(changed is None for changed, _ in results):
            return None, [outcome for _, outcomes in results for outcome in outcomes]
        items = [changed or item for (changed, _), item in zip(results, document["items"], strict=True)]
        return {**document, "items": items}, [outcome for _, outcomes in results for outcome in outcomes]
    outcome = change(document)
    return outcome.document, [outcome]


def dump(document: Json) -> str:
    """A document as YAML, its keys in the order they came."""
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=120)


def title(document: Json) -> str:
    """What people call an object."""
    return f"{str(document['kind']).lower()}/{(document.get('metadata') or {}).get('name', '')}"


def template_of(document: Json) -> Json | None:
    """The pod template within an object (the object itself for a Pod); None for other kinds."""
    path = TEMPLATES.get(document["kind"])
    if path is None:
        return None
    template: Any = document
    for key in path:
        template = template.get(key) if isinstance(template, dict) else None
    return template if isinstance(template, dict) and isinstance(template.get("spec"), dict) else None


def owner_of(document: Json) -> Owner | None:
    """The workload that the webhook would see as the owner of the object's pods."""
    name = (document.get("metadata") or {}).get("name")
    if document["kind"] == "Pod" or not name:
        return None
    return Owner(str(document["kind"]).lower(), str(name))


def annotate(document: Json) -> Outcome:
    """Ask for injection: the annotation on the pod template, on a Namespace also the label that the webhook selects."""
    changed = copy.deepcopy(document)
    if document["kind"] == "Namespace":
        metadata = changed.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), labels.MESHED_NAMESPACE: "enabled"}
        holder = changed
    else:
        template = template_of(changed)
        if template is None:
            return Outcome(title(document), "skipped: it has no pods")
        if template["spec"].get("hostNetwork"):
            return Outcome(title(document), "skipped: its pods use hostNetwork, which cannot be meshed")
        holder = template
    metadata = holder.setdefault("metadata", {})
    annotations = metadata.get("annotations") or {}
    if annotations.get(labels.INJECT) == "enabled" and document["kind"] != "Namespace":
        return Outcome(title(document), "unchanged: already annotated")
    metadata["annotations"] = {**annotations, labels.INJECT: "enabled"}
    return Outcome(title(document), "annotated", changed)


def replace_template(document: Json, template: Json) -> Json:
    """The object with another pod template."""
    path = TEMPLATES[document["kind"]]
    if not path:
        return {**document, **template}
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = template
    return changed


def uninject(document: Json) -> Outcome:
    """Take out the annotation, and everything a manual injection put in."""
    changed = copy.deepcopy(document)
    holder = changed if document["kind"] == "Namespace" else template_of(changed)
    if holder is None:
        return Outcome(title(document), "skipped: it has no pods")
    _strip_metadata(holder)
    if document["kind"] != "Namespace":
        _strip_spec(holder["spec"])
    if changed == document:
        return Outcome(title(document), "unchanged: not in the mesh")
    return Outcome(title(document), "taken out of the mesh", changed)


def _strip_metadata(holder: Json) -> None:
    metadata = holder.get("metadata") or {}
    for field in ("annotations", "labels"):
        entries = metadata.get(field)
        if not entries:
            continue
        kept = {key: value for key, value in entries.items() if not _ours(key)}
        if kept:
            metadata[field] = kept
        elif len(kept) != len(entries):
            del metadata[field]


def _ours(key: str) -> bool:
    # Settings (config.linkerd.io/...) are the user's own words: they stay, and do nothing outside the mesh.
    return key.startswith("linkerd.io/") or key in (labels.MESHED_NAMESPACE, labels.REDIRECT)


def _strip_spec(spec: Json) -> None:
    for field, names in (
        ("initContainers", _INJECTED_CONTAINERS),
        ("containers", _INJECTED_CONTAINERS),
        ("volumes", _INJECTED_VOLUMES),
    ):
        entries = spec.get(field)
        if not entries:
            continue
        kept = [entry for entry in entries if entry.get("name") not in names]
        if kept:
            spec[field] = kept
        elif len(kept) != len(entries):
            del spec[field]
