"""All rules, in the order in which they are applied and documented."""

from typing import Final

from policies.rules import access, trust, workloads
from policies.rules.model import Rule

RULES: Final[tuple[Rule, ...]] = (*trust.RULES, *access.RULES, *workloads.RULES)
