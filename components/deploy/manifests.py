"""Pure: Kubernetes objects as values: made from a resource's inputs, compared with the live one, described in lines."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from components.deploy.refs import Manifest, Ref
from components.deploy.wire import HIDDEN, LATER, UNKNOWN

SERVER_FIELDS: Final = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
"""Metadata that only the API server writes; no difference in it is a change."""
LONGEST_VALUE: Final = 100
"""Characters of a value that a line of a diff shows."""
DASHED: Final = {
    f"x_kubernetes_{name}": f"x-kubernetes-{name.replace('_', '-')}"
    for name in (
        "embedded_resource",
        "int_or_string",
        "list_map_keys",
        "list_type",
        "map_type",
        "preserve_unknown_fields",
        "validations",
    )
}
"""CRD schema keys which the SDK sends with underscores and Pulumi's provider, like this deployer, turns into dashes."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {_short(self.after)}"
        if self.after is None:
            return f"- {self.path}: {_short(self.before)}"
        return f"~ {self.path}: {_short(self.before)} -> {_short(self.after)}"


def manifest_of(inputs: Mapping[str, Any]) -> Manifest:
    """The object that a registered resource declares."""
    manifest: Manifest = _dashed({key: value for key, value in inputs.items() if not key.startswith("__")})
    if manifest.get("kind", "").endswith("Patch"):
        manifest["kind"] = manifest["kind"].removesuffix("Patch")
    return manifest


def changes(live: Manifest, wanted: Manifest) -> list[Change]:
    """Field by field, what applying would alter; a Secret's values are hidden, whoever prints this."""
    hide = live.get("kind") == "Secret"
    found = _compare("", _stripped(live), _stripped(wanted))
    if not hide:
        return list(found)
    return [
        Change(c.path, HIDDEN if c.before is not None else None, HIDDEN if c.after is not None else None)
        if c.path.split(".")[0] in ("data", "stringData")
        else c
        for c in found
    ]


def managed_by(live: Manifest, manager: str) -> bool:
    """Whether this field manager applied (part of) the live object."""
    fields = live.get("metadata", {}).get("managedFields") or []
    return any(field.get("manager") == manager and field.get("operation") == "Apply" for field in fields)


def made_here(live: Manifest, manager: str) -> bool:
    """Whether the object of a bare intent is ours: applied by this manager, or holding nothing that anyone applied (the
    API server keeps no record of a manager whose manifest had no field but the name).
    """
    return managed_by(live, manager) or not live.get("metadata", {}).get("managedFields")


def uid_of(live: Manifest) -> str:
    """The UID of a live object."""
    return str(live["metadata"].get("uid", ""))


def outputs_of(live: Manifest) -> dict[str, Any]:
    """What a resource's outputs are: the live object without the bookkeeping of field managers."""
    metadata = {key: value for key, value in live.get("metadata", {}).items() if key != "managedFields"}
    return {**live, "metadata": metadata}


def identity_of(ref: Ref) -> str:
    """The id that Pulumi's Kubernetes provider gives the same object."""
    return f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name


def bare(ref: Ref) -> Manifest:
    """The object with no field but its address: applying it gives all our fields up."""
    metadata = {"name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {})}
    return {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata}


def _stripped(manifest: Manifest) -> Manifest:
    metadata = {key: value for key, value in manifest.get("metadata", {}).items() if key not in SERVER_FIELDS}
    return {**{key: value for key, value in manifest.items() if key != "status"}, "metadata": metadata}


def _compare(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from _compare(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif _named(before) and _named(after):
        old, new = ({item["name"]: item for item in items} for items in (before, after))
        for name in dict.fromkeys([*old, *new]):
            yield from _compare(f"{path}[{name}]", old.get(name), new.get(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _compare(f"{path}[{index}]", one, other)
    else:
        yield Change(path, before, after)


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and "name" in item for item in value)
        and len({item["name"] for item in value}) == len(value)
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = text.replace(UNKNOWN, LATER).replace("\n", "\\n")
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


def _dashed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {DASHED.get(key, key): _dashed(inner) for key, inner in value.items()}
    return [_dashed(inner) for inner in value] if isinstance(value, list) else value
