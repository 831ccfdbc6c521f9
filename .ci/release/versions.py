"""One version in every file that repeats it, and the sections of the changelog: pure, texts in and texts out.

The source is `version` in pyproject.toml; `PLACES` are those who cannot ask it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

SEMVER: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
"""Semantic versions without a pre-release: Python and Pulumi spell those differently."""
CHANGELOG: Final = "CHANGELOG.md"
UNRELEASED: Final = "Unreleased"
TO_DO: Final = "What to do: "
"""How the paragraph of a section begins that says what a user must do to upgrade."""


class ReleaseError(Exception):
    """A release that cannot be made; says what is wrong and the way out."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file repeats the version: the one group of a pattern, which may be found several times."""

    path: str
    pattern: str


SOURCE: Final = Place("pyproject.toml", r'(?m)^version = "([^"]+)"$')
PLACES: Final = (
    SOURCE,
    Place("proxy/version.py", r'(?m)^VERSION: Final = "([^"]+)"$'),
    Place("ansible/galaxy.yml", r"(?m)^version: (\S+)$"),
    Place("policies/PulumiPolicy.yaml", r"(?m)^version: (\S+)$"),
    Place("Pulumi.yaml", r"(?m)^  images\.tag:\n    type: string\n    default: (\S+)$"),
    Place("components/package/arguments.py", r'Tag of the images,[^"]*Default: "([^"]+)"\.'),
    Place("components/schema.json", r'Tag of the images,[^"]*Default: \\"([^"\\]+)\\"\.'),
)


def found(place: Place, text: str) -> str:
    """The version that a file names; raises ReleaseError where it names none, or different ones."""
    matches: set[str] = set(re.findall(place.pattern, text))
    if len(matches) != 1:
        named = ", ".join(sorted(matches)) or "none"
        raise ReleaseError(f"{place.path} should name one version by {place.pattern!r}, and names {named}")
    return matches.pop()


def refuse_disagreement(read: Callable[[str], str], version: str) -> None:
    """Raise ReleaseError, with every file that names another version than this one."""
    if not SEMVER.fullmatch(version):
        raise ReleaseError(f"version {version!r} is not MAJOR.MINOR.PATCH, as in 0.2.0 (semver.org)")
    named = {place.path: found(place, read(place.path)) for place in PLACES}
    others = [f"{path} says {other}" for path, other in named.items() if other != version]
    if others:
        raise ReleaseError(
            f"the version is {version}, but {', '.join(others)}: `make version VERSION={version}` writes it everywhere"
        )
    refuse_changelog(read(CHANGELOG), version)


def refuse_changelog(text: str, version: str) -> None:
    """Raise ReleaseError unless the changelog has a section of this version that says what a user must do."""
    parts = sections(text)
    if version not in parts:
        raise ReleaseError(
            f"{CHANGELOG} has no section '## {version}' (it has {', '.join(parts) or 'none'}): "
            f"`make version VERSION={version}` makes one of what is under '## {UNRELEASED}'"
        )
    if left := parts.get(UNRELEASED, "").strip():
        raise ReleaseError(
            f"{CHANGELOG} still has lines under '## {UNRELEASED}', which begin with {left.splitlines()[0][:60]!r}: "
            f"move them to '## {version}', or tag the commit before them"
        )
    if not re.search(rf"(?m)^{TO_DO}\S", parts[version]):
        raise ReleaseError(
            f"{CHANGELOG}: section '## {version}' has no paragraph that begins with '{TO_DO}': "
            "say what a user must do to upgrade, or 'nothing'"
        )


def sections(text: str) -> dict[str, str]:
    """Version (or `Unreleased`) -> the text of its section; a heading is `## VERSION` or `## VERSION (DATE)`."""
    parts = re.split(r"(?m)^## (\S+)[^\n]*\n", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def stamped(texts: Mapping[str, str], version: str, date: str) -> dict[str, str]:
    """Every file that repeats the version, and the changelog, as they are to be for this version (date: YYYY-MM-DD)."""
    if not SEMVER.fullmatch(version):
        raise ReleaseError(f"VERSION={version} is not MAJOR.MINOR.PATCH, as in 0.2.0 (semver.org)")
    new = {}
    for place in PLACES:
        text = texts[place.path]
        old = found(place, text)
        new[place.path] = re.sub(place.pattern, partial(_replaced, old=old, version=version), text)
    new[CHANGELOG] = texts[CHANGELOG]
    if version not in sections(texts[CHANGELOG]):
        heading = f"## {UNRELEASED}\n"
        if heading not in texts[CHANGELOG]:
            raise ReleaseError(f"{CHANGELOG} has no section '## {UNRELEASED}' that could become '## {version}'")
        new[CHANGELOG] = texts[CHANGELOG].replace(heading, f"{heading}\n## {version} ({date})\n", 1)
    return new


def _replaced(match: re.Match[str], old: str, version: str) -> str:
    whole, start = match[0], match.start(1) - match.start(0)
    return whole[:start] + version + whole[start + len(old) :]
