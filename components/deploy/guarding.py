"""The project's guardrails on what its program declares: reads their levels from a file, decides nothing itself.

A project without a `policies` folder has none.
"""

import datetime
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from components.deploy.errors import DeployError
from components.deploy.registration import Declared
from policies.rules.catalogue import RULES
from policies.rules.model import CONFIG, PolicyConfigError, Resource, Violation, apply

FOLDER: Final = "policies"
PACK: Final = "PulumiPolicy.yaml"


def guarded(root: Path) -> bool:
    """Whether a project has policies at all."""
    return (root / FOLDER / PACK).is_file()


def violations(root: Path, stack: str, declared: Iterable[Declared], config: Mapping[str, str]) -> list[Violation]:
    """What a stack's program breaks; `config` is the stack's, without its secret values."""
    if not guarded(root):
        return []
    resources = [Resource(each.type, each.name, each.inputs, each.protect) for each in declared]
    resources.append(Resource(CONFIG, stack, config))
    try:
        found = apply(RULES, resources, levels(root, stack), datetime.datetime.now(datetime.UTC))
    except PolicyConfigError as error:
        raise DeployError(str(error), f"Correct it in {_file(root, stack)}.") from None
    return sorted(found, key=lambda each: (each.level != "mandatory", each.rule, each.resource, each.value))


def refuse(found: Iterable[Violation]) -> None:
    """Raise for what is mandatory, each with its remedy."""
    mandatory = [str(each) for each in found if each.level == "mandatory"]
    if mandatory:
        raise DeployError(
            f"the stack breaks {len(mandatory)} of its policies, so nothing is applied:\n  " + "\n  ".join(mandatory),
            f"Follow the remedies above; levels per stack stand in {FOLDER}/policy-config.<stack>.json.",
        )


def levels(root: Path, stack: str) -> dict[str, Any]:
    """Levels and parameters of a stack, in Pulumi's own form; those of no particular stack where it has none."""
    path = _file(root, stack)
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DeployError(f"{path} cannot be read: {error}", "It holds levels by policy name, as JSON.") from None
    if not isinstance(document, dict):
        raise DeployError(f"{path} holds no object", "It holds levels by policy name, as JSON.")
    return document


def _file(root: Path, stack: str) -> Path:
    own = root / FOLDER / f"policy-config.{stack}.json"
    return own if own.is_file() else root / FOLDER / "policy-config.json"
