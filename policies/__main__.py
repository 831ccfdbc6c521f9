"""The policy pack: serves the rules to Pulumi (`pulumi up --policy-pack policies --policy-pack-config
policies/policy-config.<stack>.json`). Nothing is decided here.
"""

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.rules.catalogue import RULES
from policies.rules.model import UNKNOWN, Resource, Rule, apply

TYPES: Final = {list: "array", int: "integer", float: "number", str: "string", bool: "boolean"}


def plain(value: Any) -> Any:
    """A property as plain data: the SDK's view of it raises at the first unknown, and would end a rule half-way."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(container: Any, key: Any) -> Any:
    try:
        return plain(container[key])
    except UnknownValueError:
        return UNKNOWN


def resource_of(args: Any) -> Resource:
    """A resource as rules see it."""
    return Resource(args.resource_type, args.name, plain(args.props), bool(args.opts.protect))


def schema_of(rule: Rule) -> PolicyConfigSchema | None:
    """What of a rule can be set, with its defaults."""
    if not rule.parameters:
        return None
    return PolicyConfigSchema(
        {key: {"type": TYPES[type(value)], "default": value} for key, value in rule.parameters.items()}
    )


def served(rule: Rule) -> ResourceValidationPolicy | StackValidationPolicy:
    """A rule as a policy: of single resources where it can, so that it stops each before it is made."""

    def found(resources: list[Resource], args: Any, report: ReportViolation) -> None:
        config = {rule.name: dict(args.get_config() or {})}
        for violation in apply([rule], resources, config, datetime.datetime.now(datetime.UTC)):
            report(str(violation))

    def of_resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
        found([resource_of(args)], args, report)

    def of_stack(args: StackValidationArgs, report: ReportViolation) -> None:
        found([resource_of(each) for each in args.resources], args, report)

    common: dict[str, Any] = {
        "name": rule.name,
        "description": rule.sentence,
        "enforcement_level": EnforcementLevel.MANDATORY,
        "config_schema": schema_of(rule),
    }
    if rule.whole:
        return StackValidationPolicy(validate=of_stack, **common)
    return ResourceValidationPolicy(validate=of_resource, **common)


if __name__ == "__main__":
    PolicyPack("tulle", [served(rule) for rule in RULES])
