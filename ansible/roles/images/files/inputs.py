"""Says what enters each image, and names the image by it: pure but for reading the work tree.

`inputs.py ROOT` prints `{"proxy": "localhost/tulle/proxy:<hash>", ...}`. `inputs.py ROOT FOLDER` copies the inputs of
all images to a folder too, as the context of a build, with fixed times, so that a second clone finds the first one's
layers.

Inputs are the files that git knows or would add: a file that is ignored (a compiled module of this work tree, say)
never enters an image. Without git, everything below the same paths does but what a build leaves behind.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

FILES = "ansible/roles/images/files"
CONTAINERFILE = f"{FILES}/Containerfile"
BUILD = (CONTAINERFILE, f"{FILES}/parts.py", f"{FILES}/uv.txt", "pyproject.toml", "requirements.lock")
# What each image is made of; a path with a slash at its end stands for everything below it.
IMAGES = {
    "proxy": (*BUILD, "proxy/"),
    "control": (*BUILD, "proxy/__init__.py", "proxy/api/", "components/"),
    "prometheus": (CONTAINERFILE,),
}
LEFT_BEHIND = {".so", ".c", ".pyc", ".html"}
HASH_LENGTH = 12


class MissingInput(Exception):
    """A path that an image is made of is not there."""


def listed(root: Path) -> list[str]:
    """Every file below the root that could enter an image, in a fixed order."""
    git = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        found = [str(path.relative_to(root)) for path in root.rglob("*") if path.suffix not in LEFT_BEHIND]
    # A file that is deleted but not yet committed is still listed.
    return sorted(path for path in set(found) if path and (root / path).is_file())


def inputs(root: Path, image: str, files: list[str]) -> list[str]:
    taken = []
    for pattern in IMAGES[image]:
        matched = [path for path in files if path == pattern or (pattern.endswith("/") and path.startswith(pattern))]
        if not matched:
            raise MissingInput(f"image {image!r} needs {pattern!r}, which is not below {root}")
        taken.extend(matched)
    return taken


def tag(root: Path, paths: list[str]) -> str:
    """A hash of names, modes and contents: the same files in another clone give the same image."""
    digest = hashlib.sha256()
    for path in paths:
        mode = "x" if os.access(root / path, os.X_OK) else "-"
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        digest.update(f"{path}\0{mode}\0{content}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]


def stage(root: Path, paths: list[str], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path in paths:
        copy = folder / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, copy)
        copy.chmod(0o755 if os.access(root / path, os.X_OK) else 0o644)
    for place, _, names in os.walk(folder):
        for name in (*names, "."):
            os.utime(Path(place, name), (0, 0))


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]).resolve()
    files = listed(root)
    try:
        taken = {image: inputs(root, image, files) for image in IMAGES}
    except MissingInput as error:
        print(f"inputs: {error}", file=sys.stderr)
        return 1
    if len(arguments) > 1:
        stage(root, sorted({path for paths in taken.values() for path in paths}), Path(arguments[1]))
    print(
        json.dumps({image: f"localhost/tulle/{image}:{tag(root, paths)}" for image, paths in taken.items()}, indent=2)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
