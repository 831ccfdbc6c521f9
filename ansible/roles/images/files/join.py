"""Joins archives of one image each, as buildah writes them, to one of all: `join.py TARGET ARCHIVE...`.

The target is written as `TARGET.new`, which the caller renames: half an archive is never taken for a whole one. Layers
that images share are in it once.
"""

import io
import json
import sys
import tarfile
from pathlib import Path

# The two lists that every archive has; all else is named by its content.
MANIFEST, REPOSITORIES = "manifest.json", "repositories"


def join(target: Path, archives: list[Path]) -> None:
    manifest: list[dict] = []
    repositories: dict[str, dict] = {}
    seen: set[str] = set()
    with tarfile.open(target, "w") as whole:
        for archive in archives:
            with tarfile.open(archive) as part:
                for member in part:
                    data = part.extractfile(member) if member.isfile() else None
                    if member.name == MANIFEST:
                        manifest += json.loads(data.read())
                    elif member.name == REPOSITORIES:
                        for name, tags in json.loads(data.read()).items():
                            repositories.setdefault(name, {}).update(tags)
                    elif member.name not in seen:
                        seen.add(member.name)
                        whole.addfile(member, data)
        for name, content in ((REPOSITORIES, repositories), (MANIFEST, manifest)):
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            whole.addfile(entry, io.BytesIO(text))


if __name__ == "__main__":
    join(Path(f"{sys.argv[1]}.new"), [Path(name) for name in sys.argv[2:]])
