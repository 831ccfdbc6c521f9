"""Dynamic resources: their provider classes, woken from the program's own serialisation and asked as Pulumi's engine
would ask them.
"""

import base64
import threading
from collections.abc import Mapping
from typing import Any

import dill
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider

from components.deploy.errors import DeployError
from components.deploy.inventory import Entry
from components.deploy.registration import Registration

PROVIDER_KEY = "__provider"
DEPLOYER_KEY = "deployer"
"""Config key, never in a stack file, by which a provider sees that the embedded deployer calls it."""


class Providers:
    """The provider objects of one deployment, configured with its stack config."""

    def __init__(self, config: Mapping[str, str], project: str) -> None:
        self._config = Config({**config, f"{project}:{DEPLOYER_KEY}": "embedded"}, project)
        self._awake: dict[str, ResourceProvider] = {}
        self.stopping = threading.Event()
        """Of the pass that is under way: a provider with an attribute of this name gets it, to end its waits by."""
        self._lock = threading.Lock()

    def check(self, registration: Registration, entry: Entry | None) -> dict[str, Any]:
        """The inputs as the provider wants them; raises with its reasons if it refuses them."""
        news = _bare(registration.inputs)
        result = self._wake(registration.inputs[PROVIDER_KEY]).check(_state(entry) if entry else {}, news)
        if result.failures:
            reasons = "; ".join(f"{failure.property}: {failure.reason}" for failure in result.failures)
            raise DeployError(f"{registration.name}: {reasons}")
        return dict(result.inputs)

    def differs(self, registration: Registration, entry: Entry) -> bool:
        """Whether the provider sees a difference between what it made and what is wanted."""
        news = self.check(registration, entry)
        result = self._wake(registration.inputs[PROVIDER_KEY]).diff(entry.identity, _state(entry), news)
        if result.replaces:
            raise DeployError(
                f"{registration.name} would have to be replaced, because {', '.join(result.replaces)} changed",
                "Set the old value again; to start afresh, run `tulle down` first.",
            )
        return bool(result.changes) if result.changes is not None else news != entry.inputs

    def create(self, registration: Registration) -> tuple[str, dict[str, Any]]:
        """Make it, or adopt what an earlier, killed run made: a provider's create must find that by itself."""
        result = self._wake(registration.inputs[PROVIDER_KEY]).create(self.check(registration, None))
        return result.id, dict(result.outs or {})

    def update(self, registration: Registration, entry: Entry) -> dict[str, Any]:
        """Change it in place."""
        news = self.check(registration, entry)
        result = self._wake(registration.inputs[PROVIDER_KEY]).update(entry.identity, _state(entry), news)
        return dict(result.outs or {})

    def delete(self, entry: Entry) -> None:
        """Remove what it made."""
        self._wake(entry.provider).delete(entry.identity, _state(entry))

    def _wake(self, serialised: str) -> ResourceProvider:
        with self._lock:
            if serialised not in self._awake:
                provider: ResourceProvider = dill.loads(base64.b64decode(serialised))  # noqa: S301  the program's own
                provider.configure(ConfigureRequest(self._config))
                self._awake[serialised] = provider
            awake = self._awake[serialised]
            if hasattr(awake, "stopping"):
                awake.stopping = self.stopping
            return awake


def _bare(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key != PROVIDER_KEY}


def _state(entry: Entry) -> dict[str, Any]:
    return {**entry.inputs, **entry.outputs}
