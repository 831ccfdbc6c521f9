"""The work tree and its tags, by git: what is built is a tag's files and nothing else."""

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from release.versions import CHANGELOG, PLACES, ReleaseError, stamped

AUTHOR: Final = ("-c", "user.name=Tulle", "-c", "user.email=tulle@localhost", "-c", "commit.gpgsign=false")
"""Of the commit in a throw-away clone, which nobody keeps."""
DRY_DATE: Final = "2000-01-01"
"""Date of the section that a throw-away clone makes."""


def git(root: Path, *arguments: str) -> str:
    """What git prints; raises ReleaseError with its own words."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"git {arguments[0]} in {root}: {done.stderr.strip()}")
    return done.stdout.strip()


def tagged(root: Path, version: str) -> str:
    """The commit of the tag `v<version>`; raises ReleaseError for a dirty tree, no tag, or another commit than HEAD."""
    if changes := git(root, "status", "--porcelain"):
        shown = ", ".join(line[3:] for line in changes.splitlines()[:5])
        raise ReleaseError(f"the work tree differs from its commit ({shown}): commit, stash or remove that first")
    tag = f"v{version}"
    if not git(root, "tag", "--list", tag):
        raise ReleaseError(f"there is no tag {tag}: `git tag {tag}` at the commit that is to be released")
    commit, head = git(root, "rev-parse", f"{tag}^{{commit}}"), git(root, "rev-parse", "HEAD")
    if commit != head:
        raise ReleaseError(f"tag {tag} is {commit[:12]}, but checked out is {head[:12]}: `git checkout {tag}` first")
    return commit


def epoch(root: Path, commit: str) -> int:
    """The commit's time in seconds since 1970: the time of everything that a release holds."""
    return int(git(root, "show", "--no-patch", "--format=%ct", commit))


def export(root: Path, commit: str, target: Path) -> None:
    """The commit's files, in a new folder."""
    target.mkdir(parents=True)
    archive = target.with_suffix(".tar")
    git(root, "archive", "--format=tar", f"--output={archive}", commit)
    with tarfile.open(archive) as opened:
        opened.extractall(target, filter="tar")
    archive.unlink()


def stamp(root: Path, version: str, date: str) -> list[str]:
    """Write a version into every file that repeats it, and make its section of the changelog; names what changed."""
    texts = {path: (root / path).read_text() for path in {*(place.path for place in PLACES), CHANGELOG}}
    new = stamped(texts, version, date)
    changed = sorted(path for path, text in new.items() if text != texts[path])
    for path in changed:
        (root / path).write_text(new[path])
    return changed


def throw_away(root: Path, version: str, target: Path) -> Path:
    """A clone in which the work tree as it is now, uncommitted files included, is committed and tagged `v<version>`."""
    git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(target))
    for path in git(target, "ls-files", "-z").split("\0"):
        if path and not (root / path).exists():
            (target / path).unlink()
    for path in git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if path and (root / path).is_file():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).unlink(missing_ok=True)
            shutil.copy(root / path, target / path, follow_symlinks=False)
    stamp(target, version, DRY_DATE)
    git(target, "add", "--all")
    git(target, *AUTHOR, "commit", "--quiet", "--allow-empty", "--message", f"Dry run of {version}")
    git(target, *AUTHOR, "tag", "--force", f"v{version}")
    return target
