"""Pure: one resource as the program registered it, in our words; what travels from the monitor to the planner or the
applier.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Registration:
    """A custom resource with resolved inputs."""

    urn: str
    type: str
    name: str
    inputs: dict[str, Any]
    depends: tuple[str, ...] = ()
    """URNs of custom resources that this one waits for."""
    protect: bool = False
    timeout: float = 0.0
    """Seconds to wait for readiness; 0 means the default."""
    former: tuple[str, ...] = ()
    """Names that the program says it had before (aliases, its own and those that its parents' bring)."""

    @property
    def dynamic(self) -> bool:
        """Whether its own provider class, not a Kubernetes object, is behind it."""
        return self.type.startswith("pulumi-python:dynamic")


@dataclass(frozen=True, slots=True)
class Declared:
    """What the program said of any resource, components included; for rules that judge the program."""

    type: str
    name: str
    inputs: dict[str, Any]
    protect: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a registration is answered with."""

    identity: str
    outputs: dict[str, Any]
    secret_keys: frozenset[str] = frozenset()


class Handler(Protocol):
    """What the monitor hands resources to: the planner in a preview, the applier otherwise."""

    def register(self, registration: Registration) -> Outcome:
        """Deal with one resource; blocks until its outputs are known."""

    def stop(self) -> None:
        """Give up waiting: somebody interrupts."""

    def finish(self, outputs: dict[str, Any]) -> None:
        """Take the stack's outputs, secret ones already hidden."""


def seconds(duration: str) -> float:
    """Pulumi's custom timeouts (`1h30m`, `45s`) in seconds; 0 for none."""
    return sum(float(value) * _UNITS[unit] for value, unit in re.findall(r"([\d.]+)(ms|h|m|s)", duration))
