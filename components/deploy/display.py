"""The deployment as a person sees it: the plan in signs and colours, progress while it runs, the end in one line.
Everything is redacted first.
"""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from components.deploy.steps import Action, Step, Tally, sorted_steps
from components.deploy.wire import Secrets

COLOURS: Final = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.DELETE: "red",
    Action.SAME: "dim",
    Action.KEEP: "cyan",
}
DONE: Final = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.DELETE: "deleted",
    Action.KEEP: "kept",
    Action.SAME: "unchanged",
}


class Display:
    """A reporter that writes lines to a console, and on a terminal one live line of what is waited for."""

    def __init__(self, console: Console, secrets: Secrets | None = None) -> None:
        self.secrets = secrets or Secrets()
        self._console = console
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._status: Status | None = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._status = self._console.status("working")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def began(self, label: str, action: Action) -> None:
        """A step begins."""
        with self._lock:
            self._started[label] = time.monotonic()
            self._waiting[label] = ""
            self._show()

    def waits(self, label: str, reason: str) -> None:
        """A step waits; said once per reason where there is no live line to change."""
        with self._lock:
            if self._waiting.get(label) == reason:
                return
            self._waiting[label] = reason
            if self._status is None:
                self._line(f"    {label}: {reason}", "dim")
            self._show()

    def ended(self, label: str, action: Action) -> None:
        """A step is done; one that changed nothing is not worth a line."""
        with self._lock:
            took = time.monotonic() - self._started.pop(label, time.monotonic())
            self._waiting.pop(label, None)
            if action is not Action.SAME:
                seconds = f" ({took:.0f} s)" if took >= 1 else ""
                self._line(f"  {action.value} {label} {DONE[action]}{seconds}", COLOURS[action])
            self._show()

    def boundary(self, label: str, point: str) -> None:
        """Of no interest to a reader."""

    def plan(self, tally: Tally) -> None:
        """The plan, with each field that would change."""
        for step in sorted_steps(tally.steps):
            if step.action is not Action.SAME:
                self._step(step)
        for violation in tally.violations:
            mandatory = violation.level == "mandatory"
            self._line(f"policy ({violation.level}) {violation}", "red" if mandatory else "yellow")
        self.summary(tally, planned=True)

    def summary(self, tally: Tally, planned: bool = False) -> None:
        """Counts in one line."""
        words = ("to create", "to update", "to delete") if planned else ("created", "updated", "deleted")
        parts = [
            f"{tally.count(action)} {word}"
            for action, word in zip((Action.CREATE, Action.UPDATE, Action.DELETE), words, strict=True)
            if tally.count(action)
        ]
        parts += [f"{tally.count(Action.KEEP)} protected and kept"] if tally.count(Action.KEEP) else []
        parts += [f"{tally.count(Action.SAME)} unchanged"] if tally.count(Action.SAME) else []
        self._line(", ".join(parts) or "nothing there", "bold")

    def outputs(self, outputs: Mapping[str, Any]) -> None:
        """The stack's outputs; a text of several lines is summed up."""
        for key in sorted(outputs):
            text = outputs[key] if isinstance(outputs[key], str) else json.dumps(outputs[key], sort_keys=True)
            self._line(f"  {key}: {text if chr(10) not in text.strip() else text.strip().splitlines()[0] + ' …'}", "")

    def _step(self, step: Step) -> None:
        note = f"  ({step.note})" if step.note else ""
        self._line(f"{step.action.value} {step.label}{note}", COLOURS[step.action])
        for change in step.changes:
            self._line(f"    {change}", "dim")

    def _line(self, text: str, style: str) -> None:
        self._console.print(escape(self.secrets.redact(text)), style=style or None, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        if self._status is not None:
            busy = [f"{label}: {reason}" if reason else label for label, reason in self._waiting.items()]
            text = "; ".join(busy[:3]) + (f" and {len(busy) - 3} more" if len(busy) > 3 else "")
            self._status.update(escape(self.secrets.redact(text or "working")))
