"""The oldest release that this one must work with, out of the repository's own history: its source tree, and its proxy
compiled as it compiles itself.

It is named by its tree, which says what is in it and outlives a history that is written anew; a clone without history
(shallow, or an archive) does not have it, and says so.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TREE: Final = "8d017b0878e0603a9153aac345721974bc0d4567"
"""Git tree of the pinned release: `git rev-parse RELEASE^{tree}`. Moves forward when support for it ends."""
RECORD: Final = ROOT / "tests" / "unit" / "golden" / "pinned.json"
"""What it says to others, for tests that have no history: `python -m tests.kit.pinned` writes it."""
BUILD_SECONDS: Final = 3000
"""Minutes on a machine of one's own, ten times that on a busy one."""
COMPILED: Final = sysconfig.get_config_var("EXT_SUFFIX")


class MissingError(Exception):
    """The pinned release is not in this clone; says how to get it."""


def pinned() -> Path:
    """The folder of the pinned release with its proxy compiled: built once, kept in the user's cache.

    Raises MissingError without history, and CalledProcessError (with what the compiler said) if it no longer builds.
    """
    cache = Path(os.environ.get("TULLE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tulle")
    folder = cache.expanduser() / "pinned" / f"{TREE[:12]}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        require()
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="making-", dir=folder.parent))
        try:
            _extract(made)
            _compile(made)
            # uid 2102 reads it.
            made.chmod(0o755)
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def require() -> None:
    """Raise MissingError where the release is not in this clone, and AssertionError where it should be."""
    found = subprocess.run(["git", "-C", str(ROOT), "cat-file", "-t", TREE], capture_output=True, text=True)
    if found.stdout.strip() == "tree":
        return
    if not (ROOT / ".git").exists():
        raise MissingError(f"the pinned release (tree {TREE[:12]}) is not here: this is no clone; clone the repository")
    shallow = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"], capture_output=True, text=True
    )
    if shallow.stdout.strip() == "true":
        raise MissingError(f"the pinned release (tree {TREE[:12]}) is not here: run `git fetch --unshallow`")
    raise AssertionError(f"this clone has all history but no tree {TREE}: pin a release that is in it\n{found.stderr}")


def _extract(folder: Path) -> None:
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", TREE], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def _compile(folder: Path) -> None:
    """Its own build, but for what is the same here (a module's source, and every declaration it may include), and with
    less work of the compiler: it is asked what it says, not how fast.
    """
    if _declarations(folder) == _declarations(ROOT):
        for source in (folder / "proxy").rglob("*.pyx"):
            here = ROOT / source.relative_to(folder)
            built = here.with_name(here.stem + COMPILED)
            if here.is_file() and built.is_file() and here.read_bytes() == source.read_bytes():
                shutil.copy2(built, source.with_name(built.name))
    sources = (folder / "proxy").rglob("*.pyx")
    if all(source.with_name(source.stem + COMPILED).is_file() for source in sources):
        return
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('"-O2"', '"-O0"'))
    done = subprocess.run(
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet", "build_ext", "--inplace"],
        cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS,
    )  # fmt: skip
    said = done.stdout[-4000:] + done.stderr[-4000:]
    assert done.returncode == 0, f"the pinned release does not build here any more:\n{said}"


def _declarations(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "proxy").rglob("*.pxd")}
    return {**found, "pyproject.toml": b"\n".join(_extensions(folder / "pyproject.toml"))}


def _extensions(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if b'sources = ["proxy/' in line]


def recorded() -> str:
    """What the release says to others, as JSON; needs its history, but nothing compiled."""
    require()
    recorder = (Path(__file__).parent / "pinned_record.py").read_text()
    with tempfile.TemporaryDirectory() as folder:
        _extract(Path(folder))
        done = subprocess.run([sys.executable, "-c", recorder], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    RECORD.write_text(recorded())
