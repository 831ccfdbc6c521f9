"""Pure: what a deployment does, as values: the plan's lines and the counts at its end; and who is told about it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol

from components.deploy.manifests import Change
from policies.rules.model import Violation


class Action(Enum):
    """What happens to one thing; the value is its sign in a plan."""

    CREATE = "+"
    UPDATE = "~"
    DELETE = "-"
    SAME = "="
    KEEP = "!"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan."""

    action: Action
    label: str
    changes: tuple[Change, ...] = ()
    note: str = ""


@dataclass(slots=True)
class Tally:
    """The steps of one pass, in the order they were decided."""

    steps: list[Step] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    """What the program breaks of the project's policies; of a plan only."""

    def count(self, action: Action) -> int:
        """How many steps of a sort there are."""
        return sum(step.action is action for step in self.steps)

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be done."""
        return all(step.action in (Action.SAME, Action.KEEP) for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "summary": {action.name.lower(): self.count(action) for action in Action},
            "steps": [
                {
                    "action": step.action.name.lower(),
                    "object": step.label,
                    **({"changes": [str(change) for change in step.changes]} if step.changes else {}),
                    **({"note": step.note} if step.note else {}),
                }
                for step in sorted_steps(self.steps)
            ],
            **({"policies": [asdict(each) for each in self.violations]} if self.violations else {}),
        }


def sorted_steps(steps: Iterable[Step]) -> list[Step]:
    """Creations, updates, deletions, what is kept, what is the same; by name within each."""
    order = list(Action)
    return sorted(steps, key=lambda step: (order.index(step.action), step.label))


class Reporter(Protocol):
    """Who is told how a deployment proceeds; called from many threads."""

    def began(self, label: str, action: Action) -> None:
        """A step begins."""

    def waits(self, label: str, reason: str) -> None:
        """A step waits, and for what."""

    def ended(self, label: str, action: Action) -> None:
        """A step is done."""

    def boundary(self, label: str, point: str) -> None:
        """Between two writes: after it, a kill leaves the cluster as the next run must be able to find it."""


class Silent:
    """A reporter that says nothing."""

    def began(self, label: str, action: Action) -> None:
        """Nothing."""

    def waits(self, label: str, reason: str) -> None:
        """Nothing."""

    def ended(self, label: str, action: Action) -> None:
        """Nothing."""

    def boundary(self, label: str, point: str) -> None:
        """Nothing."""
