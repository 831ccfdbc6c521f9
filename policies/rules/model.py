"""Pure: what a rule sees and says, and how rules are applied at the levels that a stack sets."""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What Pulumi writes for a value that is known only after apply."""
LEVELS: Final = ("mandatory", "advisory", "disabled")
CONFIG: Final = "tulle:stack:Config"
"""Type of the pseudo resource that carries a stack's own config, secret values left out."""


class PolicyConfigError(ValueError):
    """A policy configuration that cannot be used; names rule, key and what is allowed."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it is declared; property names are Kubernetes' and Pulumi's own (camelCase)."""

    type: str
    """Type token, like `kubernetes:apps/v1:Deployment`."""
    name: str
    properties: Mapping[str, Any]
    protect: bool = False

    @property
    def kind(self) -> str:
        """The token's last part."""
        return self.type.rpartition(":")[2]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """A Kubernetes object's metadata; empty elsewhere."""
        found = self.properties.get("metadata")
        return found if isinstance(found, Mapping) else {}

    @property
    def title(self) -> str:
        """How a violation calls it."""
        name, namespace = self.metadata.get("name"), self.metadata.get("namespace")
        if not isinstance(name, str) or unknown(name):
            return f"{self.kind} {self.name}"
        spaced = isinstance(namespace, str) and not unknown(namespace)
        return f"{self.kind} {namespace}/{name}" if spaced else f"{self.kind} {name}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding: which resource breaks which rule, by what, and how it is put right."""

    rule: str
    resource: str
    value: str
    remedy: str
    level: str = "mandatory"

    def __str__(self) -> str:
        return f"{self.resource}: {self.rule}: {self.value}. {self.remedy}"


Parameters = Mapping[str, Any]
Found = Iterator[tuple[Resource, str, str]]
"""Resource, value and remedy of each finding; the rule's own name is added where it is applied."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One guardrail."""

    name: str
    sentence: str
    check: Callable[[Sequence[Resource], Parameters, datetime.datetime], Found]
    parameters: Parameters = field(default_factory=dict)
    """Its parameters with their defaults; a default also says the type."""
    whole: bool = False
    """Whether it must see the whole stack at once; others look at one resource at a time."""


def apply(
    rules: Iterable[Rule], resources: Sequence[Resource], config: Mapping[str, Any], now: datetime.datetime
) -> list[Violation]:
    """Every violation, at the level that the config gives its rule; disabled rules are not run."""
    known = list(rules)
    check_config(known, config)
    found = []
    for rule in known:
        level, parameters = setting(rule, config)
        if level != "disabled":
            for resource, value, remedy in rule.check(resources, parameters, now):
                found.append(Violation(rule.name, resource.title, value, remedy, level))
    return found


def setting(rule: Rule, config: Mapping[str, Any]) -> tuple[str, Parameters]:
    """Level and parameters of a rule, in the form of Pulumi's policy configuration files."""
    given = config.get(rule.name, config.get("all", "mandatory"))
    if isinstance(given, str):
        return given, rule.parameters
    level = given.get("enforcementLevel", config.get("all", "mandatory"))
    return level, {**rule.parameters, **{key: given[key] for key in rule.parameters if key in given}}


def check_config(rules: Sequence[Rule], config: Mapping[str, Any]) -> None:
    """Refuse levels, rules and parameters that there are not: a guardrail must not vanish by a slip of the pen."""
    by_name = {rule.name: rule for rule in rules}
    for name, given in config.items():
        level = given if isinstance(given, str) else given.get("enforcementLevel", "mandatory")
        if level not in LEVELS:
            raise PolicyConfigError(f"policy {name}: level is {level!r}, but must be one of {', '.join(LEVELS)}")
        if name == "all":
            continue
        if name not in by_name:
            raise PolicyConfigError(f"there is no policy {name!r}; there are {', '.join(by_name)}")
        if not isinstance(given, str):
            _check_parameters(by_name[name], given)


def _check_parameters(rule: Rule, given: Mapping[str, Any]) -> None:
    for key in set(given) - {"enforcementLevel"}:
        if key not in rule.parameters:
            known = ", ".join(rule.parameters) or "none"
            raise PolicyConfigError(f"policy {rule.name} has no parameter {key!r}; it has {known}")
        # JSON and protobuf know one kind of number.
        wanted = type(rule.parameters[key])
        allowed = (int, float) if wanted in (int, float) else wanted
        if not isinstance(given[key], allowed) or isinstance(given[key], bool) is not (wanted is bool):
            raise PolicyConfigError(
                f"policy {rule.name}: {key} is {given[key]!r}, but must be of type {wanted.__name__}"
            )


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a value, with the path to it."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}[{index}]")


def unknown(value: Any) -> bool:
    """Whether a value will be known only after apply."""
    return isinstance(value, str) and UNKNOWN in value


def at(value: Any, *path: str) -> Any:
    """What stands at a path in nested mappings; None where nothing does."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def items(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; none where the list is absent or unknown."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def document(text: Any) -> Any:
    """A text that holds JSON, read; None for any other."""
    if not isinstance(text, str) or unknown(text):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None
