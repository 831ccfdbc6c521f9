"""Says which builds nobody needs any more: pure, from what the caller has listed.

`prune.py HISTORY KEEP` reads a JSON object from its standard input: `wanted` (the names of this run), `built`
(buildah's list), `loaded` (the cluster's list of images, as ctr prints it) and `used` (its list of containers). It
moves the wanted names to the end of the history file and prints what to remove from each store. A name stays while it
is wanted, one of the last of its kind, or used by a container.
"""

import json
import sys
import time
from pathlib import Path

# Layers of builds that are gone speed nothing up after this long.
LAYER_DAYS = 14


def outdated(history: list[str], keep: int) -> list[str]:
    """The names that are followed by enough newer ones of their kind."""
    newer: dict[str, int] = {}
    found = []
    for name in reversed(history):
        kind = name.rpartition(":")[0]
        newer[kind] = newer.get(kind, 0) + 1
        if newer[kind] > keep:
            found.append(name)
    return found


def references(loaded: str, names: set[str]) -> list[str]:
    """Every reference to the images of these names: containerd keeps one by name and one by content."""
    rows = [line.split() for line in loaded.splitlines()[1:] if line.strip()]
    digests = {row[2] for row in rows if row[0] in names}
    still = {row[2] for row in rows if row[0] not in names and not row[0].startswith("sha256:")}
    return sorted(
        row[0] for row in rows if row[0] in names or (row[0].startswith("sha256:") and row[2] in digests - still)
    )


def stale_layers(built: list[dict], now: float) -> list[str]:
    return [image["id"] for image in built if not image.get("names") and image["created"] < now - LAYER_DAYS * 86400]


def main(history_file: Path, keep: int) -> None:
    given = json.load(sys.stdin)
    history = json.loads(history_file.read_text()) if history_file.exists() else []
    history = [name for name in history if name not in given["wanted"]] + given["wanted"]
    used = set(given["used"].split())
    old = [name for name in outdated(history, keep) if name not in used]
    history_file.parent.mkdir(parents=True, exist_ok=True)
    history_file.write_text(json.dumps([name for name in history if name not in old], indent=2) + "\n")
    built = {name for image in given["built"] for name in image.get("names") or []}
    remove = {
        "built": [*(name for name in old if name in built), *stale_layers(given["built"], time.time())],
        "loaded": references(given["loaded"], set(old)),
    }
    print(json.dumps(remove))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
