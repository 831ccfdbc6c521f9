"""One release for all tests of the suite, built from a throw-away clone that is tagged, and environments without Tulle.

`TULLE_RELEASE=FOLDER` takes a release that is built already.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.ansible.kit import BIN, ROOT, may_sandbox
from tests.mesh.conftest import mesh

__all__ = ["mesh"]

REGISTRY: Final = "registry.example/tulle"
BUILD_SECONDS: Final = 900


@dataclass(frozen=True, slots=True)
class Release:
    """A folder `dist/<version>`."""

    folder: Path
    version: str

    def file(self, pattern: str) -> Path:
        """The one file of a pattern."""
        (found,) = self.folder.glob(pattern)
        return found

    @property
    def compiled(self) -> Path:
        """The wheel with the compiled modules."""
        return self.file("*-linux_*.whl")

    @property
    def pure(self) -> Path:
        """The wheel without them."""
        return self.file("*-none-any.whl")


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment outside of the clone, and a folder to work in."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "env/bin/python"

    def install(self, *arguments: str) -> None:
        """`uv pip install` into it."""
        run(str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(self.python), *arguments)

    def run(self, *command: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program of it, with nothing that leads back to the clone."""
        return run(str(self.python.parent / command[0]), *command[1:], folder=self.folder, given=given, more=more)


def run(
    *command: str,
    folder: Path | None = None,
    given: str = "",
    more: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without a PYTHONPATH and in UTF-8."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "KUBECONFIG")}
    done = subprocess.run(
        command, cwd=folder, input=given, env={**clean, **(more or {})}, capture_output=True, text=True,
        check=False, timeout=BUILD_SECONDS,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command[:6]}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """`make release DRY=1`, with the work tree's compiled modules."""
    if ready := os.environ.get("TULLE_RELEASE"):
        return Release(Path(ready), Path(ready).name)
    if reason := may_sandbox():
        pytest.skip(f"images are built as root: {reason}")
    output = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "-m", "release", "--dry", "--registry", REGISTRY, "--output", str(output),
        folder=ROOT, more={"PYTHONPATH": str(ROOT / ".ci")},
    )  # fmt: skip
    (folder,) = output.iterdir()
    return Release(folder, folder.name)


@pytest.fixture(scope="session")
def make_environment() -> Iterator[Callable[[], Environment]]:
    """Makes environments that other users (the proxy's) can read too; they go at the end."""
    made: list[Path] = []

    def make() -> Environment:
        folder = Path(tempfile.mkdtemp(prefix="tulle-outside-"))
        folder.chmod(0o755)
        made.append(folder)
        run(str(BIN / "uv"), "venv", "--quiet", "--python", sys.executable, str(folder / "env"))
        return Environment(folder)

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def outside(release: Release, make_environment: Callable[[], Environment]) -> Environment:
    """An environment with the compiled wheel, what the command needs, and what the proxy needs."""
    made = make_environment()
    made.install("--require-hashes", "--requirement", str(release.folder / "requirements.txt"))
    made.install(f"tulle[proxy] @ {release.compiled.as_uri()}", "--constraints", str(ROOT / "requirements.lock"))
    return made
