"""Archives and checksums that depend on content alone: sorted, owned by root, every time the same."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

SUMS: Final = "SHA256SUMS"
BLOCK: Final = 1 << 20


def tarball(target: Path, members: Mapping[str, bytes | Path], epoch: int, executable: Iterable[str] = ()) -> None:
    """A `.tar.gz` (or `.tar`) of members by name, with the time `epoch` (seconds since 1970) on each; a name that ends
    with a slash is a folder's.
    """
    runs = set(executable)
    if target.suffix == ".tar":
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            _fill(archive, members, epoch, runs)
        return
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _fill(archive, members, epoch, runs)


def _fill(archive: tarfile.TarFile, members: Mapping[str, bytes | Path], epoch: int, runs: set[str]) -> None:
    for name, content in sorted(members.items()):
        entry = tarfile.TarInfo(name)
        entry.mtime = epoch
        entry.mode = 0o755 if name in runs or name.endswith("/") else 0o644
        if name.endswith("/"):
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
            continue
        entry.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
            archive.addfile(entry, source)


def members_of(folder: Path) -> dict[str, Path]:
    """Every file below a folder, by its path in it."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def repacked(target: Path, epoch: int) -> None:
    """A `.tar.gz` that another tool has written, anew: without its times, owners and order."""
    with tarfile.open(target) as archive:
        entries = list(archive)
        files = {entry.name: entry for entry in entries if entry.isfile()}
        members: dict[str, bytes | Path] = {name: _content(archive, entry) for name, entry in files.items()}
        members |= {f"{entry.name}/": b"" for entry in entries if entry.isdir()}
        runs = [name for name, entry in files.items() if entry.mode & 0o100]
    tarball(target, members, epoch, runs)


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(entry)
    assert opened is not None
    return opened.read()


def sha256(path: Path) -> str:
    """A file's checksum in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """`SHA256SUMS` of every other file in the folder, as sha256sum writes and reads it."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))
