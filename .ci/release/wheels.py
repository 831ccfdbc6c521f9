"""The Python packages: a wheel with the compiled modules, one without them for other interpreters, and the sources.

Both wheels are the same version of one package: pip takes the compiled one where interpreter and platform fit.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from release import packing
from release.versions import ReleaseError

COMPILE_SECONDS: Final = 1800
CONTRACT: Final = ("__init__.py", "api")
"""What the command and the components import of `proxy`; the rest is nothing without its compiled modules."""
RUN: Final = """
import os, sys
sys.path.insert(0, "")
from setuptools import setup
from setuptools.command.build_ext import build_ext
from shutil import copy

class Ready(build_ext):
    '''Takes modules that are compiled already.'''
    def build_extension(self, ext):
        target = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        copy(os.path.join(os.environ["TULLE_MODULES"], self.get_ext_filename(ext.name)), target)

setup(cmdclass={"build_ext": Ready})
"""


def compiled(source: Path, work: Path, target: Path, epoch: int, ready: Path | None = None) -> Path:
    """Build the wheel with compiled modules into `target`; `ready` is a work tree whose modules are these, compiled.

    Modules lose their symbols as in the images. Raises ReleaseError with the end of the compiler's log.
    """
    modules = work / "modules"
    if ready is None:
        copy = _copied(source, work / "compile")
        _setup(copy, ["--quiet", "build_ext", "--parallel", str(os.cpu_count()), "--build-lib", str(modules)], epoch)
    else:
        for path in (ready / "proxy").rglob("*.so"):
            (modules / path.relative_to(ready)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, modules / path.relative_to(ready))
    found = sorted(modules.rglob("*.so"))
    subprocess.run(["strip", "--strip-unneeded", *map(str, found)], check=True)
    copy = _copied(source, work / "wheel")
    _setup(copy, ["--quiet", "bdist_wheel", "--dist-dir", str(target)], epoch, TULLE_MODULES=str(modules))
    return _only(target, "*-linux_*.whl")


def pure(source: Path, work: Path, target: Path, epoch: int) -> Path:
    """Build the wheel without compiled modules into `target`."""
    copy = _copied(source, work / "pure")
    for path in (copy / "proxy").iterdir():
        if path.name not in CONTRACT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    settings = copy / "pyproject.toml"
    settings.write_text(pure_settings(settings.read_text()))
    _setup(copy, ["--quiet", "bdist_wheel", "--dist-dir", str(target)], epoch)
    return _only(target, "*-py3-none-any.whl")


def pure_settings(text: str) -> str:
    """pyproject.toml of the wheel without compiled modules."""
    parted, count = re.subn(r"(?ms)^ext-modules = \[\n.*?^\]\n", "", text)
    if count != 1:
        raise ReleaseError(f"pyproject.toml has {count} lists `ext-modules = [`, where there should be one")
    return parted


def sources(source: Path, wheel: Path, target: Path, version: str, epoch: int) -> Path:
    """The source distribution: the tag's files and the metadata of the wheel that is made of them."""
    name = f"tulle-{version}"
    members: dict[str, bytes | Path] = {f"{name}/{path}": file for path, file in packing.members_of(source).items()}
    runs = [f"{name}/{path}" for path, file in packing.members_of(source).items() if os.access(file, os.X_OK)]
    with zipfile.ZipFile(wheel) as opened:
        members[f"{name}/PKG-INFO"] = opened.read(f"{name}.dist-info/METADATA")
    made = target / f"{name}.tar.gz"
    packing.tarball(made, members, epoch, runs)
    return made


def needed(wheel: Path, work: Path) -> dict[str, list[str]]:
    """Shared library -> the newest symbol version asked of it (none where it has none), over all modules of a wheel.

    As the dynamic linker reads it (`readelf`): this is what the machine must have, since nothing is bundled.
    """
    folder = work / "unpacked"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    modules = sorted(map(str, folder.rglob("*.so")))
    told = subprocess.run(["readelf", "-dVW", *modules], capture_output=True, text=True, check=True).stdout
    return needs(told)


def needs(told: str) -> dict[str, list[str]]:
    """What `readelf -dV` tells of libraries and the versions of symbols that are asked of them."""
    libraries = re.findall(r"\(NEEDED\)\s+Shared library: \[([^\]]+)\]", told)
    wanted: dict[str, set[str]] = {name: set() for name in libraries}
    library = ""
    for line in told.splitlines():
        if match := re.search(r"Version: \d+\s+File: (\S+)\s+Cnt:", line):
            library = match[1]
        elif match := re.search(r"Name: (\S+)\s+Flags:", line):
            wanted.setdefault(library, set()).add(match[1])
    newest: dict[str, list[str]] = {}
    for name, versions in sorted(wanted.items()):
        kinds: dict[str, list[str]] = {}
        for each in versions:
            kinds.setdefault(each.rpartition("_")[0], []).append(each)
        newest[name] = sorted(max(each, key=_numbers) for each in kinds.values())
    return newest


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text.rpartition("_")[2])]


def _copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, symlinks=True)
    return target


def _setup(folder: Path, arguments: list[str], epoch: int, **more: str) -> None:
    """setuptools in a folder, in this interpreter's environment, whose build requirements are those of the lock."""
    # No debug information, and no path of this machine in what remains.
    flags = {"CFLAGS": f"-g0 -ffile-prefix-map={folder}=.", "SOURCE_DATE_EPOCH": str(epoch)}
    script = RUN if more else "from setuptools import setup; setup()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, **flags, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMPILE_SECONDS,
    )
    if done.returncode != 0:
        raise ReleaseError(f"setuptools {arguments[1]} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{len(found)} files {pattern} in {folder}, where there should be one")
    return found[0]
