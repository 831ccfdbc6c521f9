"""An OCI image layout (github.com/opencontainers/image-spec, image-layout.md): which images it holds, by digest, and
which packages are in each, read from the layers themselves.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final

from release.versions import ReleaseError

NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"
"""Where containerd (and so kind, k3d and `docker load`) looks for an image's whole name."""
WHITEOUT: Final = ".wh."
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Debian:
    """A Debian package as its control file describes it."""

    name: str
    version: str
    architecture: str
    source: str
    maintainer: str


@dataclass(frozen=True, slots=True)
class Python:
    """A Python distribution, by its metadata."""

    name: str
    version: str
    license: str


@dataclass(slots=True)
class Contents:
    """What one image holds."""

    digest: str
    size: int
    """Bytes of the layers, compressed."""
    debian: list[Debian] = field(default_factory=list)
    python: list[Python] = field(default_factory=list)


def named(folder: Path, registry: str, version: str) -> None:
    """Give every image of a layout its whole name, REGISTRY/NAME:VERSION, by which nodes and engines load it."""
    index = _json(folder / "index.json")
    for entry in index["manifests"]:
        notes = entry["annotations"]
        full = f"{registry}/{notes[NAME]}:{version}"
        entry["annotations"] = {**notes, NAME: full, FULL_NAME: full}
    index["manifests"].sort(key=lambda entry: str(entry["annotations"][NAME]))
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


def digests(folder: Path) -> dict[str, str]:
    """Image (the last part of its name, without the tag) -> digest of its manifest."""
    found = {}
    for entry in _json(folder / "index.json")["manifests"]:
        name = entry["annotations"][NAME].rpartition("/")[2].partition(":")[0]
        found[name] = str(entry["digest"])
    if not found:
        raise ReleaseError(f"{folder}: the layout holds no image")
    return dict(sorted(found.items()))


def contents(folder: Path, digest: str) -> Contents:
    """The packages of one image: dpkg's list, what was unpacked beside it (`status.d`), and Python's metadata."""
    layers = _json(_blob(folder, digest))["layers"]
    files: dict[str, bytes] = {}
    for layer in layers:
        for path, content in _told(_blob(folder, layer["digest"])):
            if content is None:
                for gone in [each for each in files if each == path or each.startswith(f"{path}/")]:
                    del files[gone]
            else:
                files[path] = content
    found = Contents(digest, sum(int(layer["size"]) for layer in layers))
    for path, content in sorted(files.items()):
        if path.endswith("/METADATA"):
            found.python.append(distribution(content.decode()))
        else:
            found.debian += packages(content.decode())
    found.debian.sort(key=lambda each: each.name)
    found.python.sort(key=lambda each: each.name)
    return found


def packages(text: str) -> Iterator[Debian]:
    """The installed packages of a dpkg status file (deb-control(5) paragraphs)."""
    for paragraph in text.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph.lstrip("\n"))
        name = fields.get("Package")
        if name and fields.get("Status", "install ok installed").endswith(" installed"):
            version = fields["Version"]
            source = fields.get("Source") or name
            yield Debian(name, version, fields["Architecture"], source.partition(" ")[0], fields["Maintainer"])


def distribution(text: str) -> Python:
    """A distribution's METADATA (packaging.python.org, core metadata)."""
    fields = HeaderParser().parsestr(text)
    return Python(fields["Name"], fields["Version"], fields.get("License-Expression") or "")


def _told(layer: Path) -> Iterator[tuple[str, bytes | None]]:
    """What a layer says of the packages: paths with contents, or with None for what it takes away."""
    with tarfile.open(layer) as opened:
        for entry in opened:
            path = entry.name.removeprefix("./").removeprefix("/")
            parent, _, base = path.rpartition("/")
            if base.startswith(WHITEOUT):
                yield f"{parent}/{base.removeprefix(WHITEOUT)}", None
            elif entry.isfile() and (
                path == "var/lib/dpkg/status"
                or parent == "var/lib/dpkg/status.d"
                or (parent.endswith(".dist-info") and base == "METADATA")
            ):
                source = opened.extractfile(entry)
                assert source is not None
                yield path, source.read()


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def _json(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found
