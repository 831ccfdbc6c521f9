"""What the cluster found and what it made outside of the state folder: one file, written before the deed.

Killed in between, the record names a thing too many, never one too few; removing what is not there does no harm.
"""

import json
from pathlib import Path

from settings import Settings


def _file(settings: Settings) -> Path:
    return settings.state / "made.json"


def read(settings: Settings, what: str) -> list[str] | None:
    """A list that was recorded, or nothing where none was."""
    try:
        found: list[str] | None = json.loads(_file(settings).read_text()).get(what)
    except FileNotFoundError:
        return None
    return found


def write(settings: Settings, what: str, names: list[str]) -> None:
    file = _file(settings)
    content = json.loads(file.read_text()) if file.exists() else {}
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps({**content, what: names}, indent=2))
    temporary.replace(file)
