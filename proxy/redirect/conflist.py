"""A network's configuration with the plugin in it, and without: pure. Text in, text out; files are `chain`'s.

A runtime takes the first file of its folder, by name (libcni), and of a list of plugins calls one after the other.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from proxy.redirect.plugin import ENTRY, TYPE, VERSIONS

EXTENSIONS: Final = (".conf", ".conflist", ".json")
"""What a runtime reads; whatever else lies there it leaves alone."""

Json = dict[str, Any]


class ConflistError(ValueError):
    """A network's configuration in which the plugin cannot be named; the message says why and what to do."""


def in_use(names: Iterable[str]) -> str:
    """The file that a runtime takes; empty if there is none yet."""
    return min((name for name in names if name.endswith(EXTENSIONS) and not name.startswith(".")), default="")


def chained(text: bytes) -> bytes:
    """The configuration with the plugin at the end of its list, the same text if it is there; raises ConflistError."""
    document = _parse(text)
    plugins = document["plugins"]
    wanted = [*(each for each in plugins if each["type"] != TYPE), dict(ENTRY)]
    return text if plugins == wanted else _write({**document, "plugins": wanted})


def unchained(text: bytes) -> bytes:
    """The configuration without the plugin, the same text if it is not there; raises ConflistError."""
    document = _parse(text)
    kept = [each for each in document["plugins"] if each["type"] != TYPE]
    return text if len(kept) == len(document["plugins"]) else _write({**document, "plugins": kept})


def restored(text: bytes, original: bytes | None) -> bytes:
    """What the file held before the plugin was named in it, byte for byte where nobody has changed it since; raises
    ConflistError.
    """
    if original is not None and chained(original) == text:
        return original
    return unchained(text)


def _parse(text: bytes) -> Json:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConflistError(f"is not JSON ({error}): the network's own program has to write it anew") from error
    if not isinstance(document, dict) or "plugins" not in document:
        raise ConflistError(
            "is not a list of plugins, and nothing can be chained behind a single one: have the network write a "
            ".conflist"
        )
    plugins = document["plugins"]
    if not isinstance(plugins, list) or not all(
        isinstance(each, dict) and isinstance(each.get("type"), str) for each in plugins
    ):
        raise ConflistError("has a plugin without a type: the network's own program has to write it anew")
    if all(each["type"] == TYPE for each in plugins):
        raise ConflistError(f"has no plugin but {TYPE}, which makes no network")
    version = document.get("cniVersion")
    if version not in VERSIONS:
        raise ConflistError(f"has cniVersion {version!r}; plugins are chained from {VERSIONS[0]} to {VERSIONS[-1]}")
    return document


def _write(document: Json) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
