"""What of requirements.lock a set of extras needs: pure. The lock says of each distribution who wants it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from release.versions import ReleaseError

ENTRY: Final = re.compile(r"(?m)^(?=[A-Za-z0-9])")
PROJECT: Final = "tulle (pyproject.toml)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One distribution of a lock."""

    name: str
    version: str
    wanted_by: frozenset[str]
    hashes: tuple[str, ...]
    """SHA-256 in hexadecimal, one for each file that may be installed."""
    text: str


def entries(lock: str) -> dict[str, Entry]:
    """A lock with hashes, as `uv pip compile` writes it, by name."""
    found = {}
    for text in ENTRY.split(lock):
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", text)
        if match:
            told = text[text.find("# via") :].removeprefix("# via")
            wanted = frozenset(line.strip(" #") for line in told.splitlines() if line.strip(" #"))
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))
            found[match[1]] = Entry(match[1], match[2], wanted, hashes, text)
    return found


def needed(lock: str, requirements: Iterable[str]) -> list[Entry]:
    """The requirements (PEP 508, as in pyproject.toml) and all that they want, in the lock's order."""
    known = entries(lock)
    found = {canonical(re.split(r"[\[<>=!~;\s]", requirement, maxsplit=1)[0]) for requirement in requirements}
    if absent := sorted(found - set(known)):
        raise ReleaseError(f"requirements.lock has no {', '.join(absent)}: `make lock`")
    while more := {each.name for each in known.values() if each.wanted_by & found} - found:
        found |= more
    return [each for each in known.values() if each.name in found]


def canonical(name: str) -> str:
    """A distribution's name as locks and indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_file(found: Iterable[Entry]) -> str:
    """A file for `pip install --require-hashes --requirement`."""
    return "".join(re.sub(r"(?ms)\n    # via.*", "\n", each.text.rstrip() + "\n") for each in found)
