"""Programs of Debian packages that tests run and the machine does not have: unpacked into the user's cache, not
installed, so that no service comes with them.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.kit.tools import ToolError, cache_folder

DOWNLOAD_SECONDS: Final = 120


def program(package: str, path: str) -> str:
    """Where the program is that a package has at this path: the machine's own, or one that is unpacked now."""
    own = shutil.which(Path(path).name)
    if own is not None:
        return own
    folder = cache_folder() / "tools" / f"debian-{package}"
    if not (folder / path).exists():
        _unpack(package, folder)
    return str(folder / path)


def package(name: str) -> Path:
    """A package's archive, for a machine of a test's own to install; raises ToolError."""
    kept = cache_folder() / "tools" / f"{name}.deb"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as work:
            _download(name, work).rename(kept)
    return kept


def _unpack(package: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        archive = _download(package, work)
        subprocess.run(["dpkg-deb", "--extract", str(archive), f"{work}/new"], check=True, timeout=DOWNLOAD_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
        Path(work, "new").rename(folder)


def _download(package: str, work: str) -> Path:
    if _apt("download", package, work=work) and os.geteuid() == 0:
        _apt("update", work=work)
        _apt("download", package, work=work)
    archive = next(Path(work).glob("*.deb"), None)
    if archive is None:
        raise ToolError(f"apt-get does not download {package}")
    return archive


def _apt(*arguments: str, work: str) -> int:
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", *arguments]
    return subprocess.run(command, cwd=work, capture_output=True, check=False, timeout=DOWNLOAD_SECONDS).returncode
