"""Parts the sources for the stages of the Containerfile; runs inside the build, with the standard library alone.

`parts.py requirements PYPROJECT LOCK FOLDER` writes what each image wants, one file an image, and the lock beside it.
`parts.py compile-inputs SOURCES FOLDER` copies what the compiler reads, and nothing else.
`parts.py prune FOLDER` leaves what an interpreter imports, and compiles its byte code.

Each answer depends on content alone (times are set to one fixed moment), so that a later stage is built again only if
what it takes has changed.
"""

import compileall
import os
import py_compile
import shutil
import sys
import tomllib
from pathlib import Path

IMAGES = ("proxy", "control")
# What the compiler reads; __init__ files make Cython see packages.
COMPILED = {".pyx", ".pxd", ".pxi", ".h"}
# Made by an earlier build in the work tree, for another interpreter, or of no use to one.
PRUNED = COMPILED | {".c", ".html", ".pyi", ".proto"}
MOMENT = 0


def requirements(pyproject: Path, lock: Path, target: Path) -> None:
    target.mkdir(parents=True)
    project = tomllib.loads(pyproject.read_text())
    always = project["project"].get("dependencies", [])
    for image in IMAGES:
        extra = project["project"]["optional-dependencies"][image]
        (target / f"{image}.txt").write_text("\n".join(sorted({*always, *extra})) + "\n")
    (target / "build.txt").write_text("\n".join(project["build-system"]["requires"]) + "\n")
    shutil.copy(lock, target / "lock.txt")
    settle(target)


def compile_inputs(sources: Path, target: Path) -> None:
    for path in sources.rglob("*"):
        if path.suffix in COMPILED or path.name in ("__init__.py", "pyproject.toml"):
            copy = target / path.relative_to(sources)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    pyproject = target / "pyproject.toml"
    pyproject.write_text(compile_settings(pyproject.read_text()))
    settle(target)


def compile_settings(text: str) -> str:
    """The part of pyproject.toml that says what to compile: the rest changes for reasons of its own."""
    kept, keeping = [], False
    for line in text.splitlines():
        if line.startswith("["):
            keeping = line.startswith(("[build-system]", "[tool.setuptools]", "[[tool.setuptools"))
        if keeping:
            kept.append(line)
    return '[project]\nname = "tulle"\nversion = "0"\n' + "\n".join(kept) + "\n"


def prune(target: Path) -> None:
    for path in sorted(target.rglob("*"), reverse=True):
        foreign = path.suffix == ".so" and f"-{sys.version_info[0]}{sys.version_info[1]}-" not in path.name
        if path.name == "__pycache__" and path.is_dir():
            shutil.rmtree(path)
        elif path.is_file() and (path.suffix in PRUNED or foreign):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(target, quiet=1, invalidation_mode=mode):
        sys.exit("parts: a module does not compile")
    settle(target)


def settle(target: Path) -> None:
    for folder, _, files in os.walk(target):
        for name in (*files, "."):
            os.utime(Path(folder, name), (MOMENT, MOMENT))


COMMANDS = {"requirements": requirements, "compile-inputs": compile_inputs, "prune": prune}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
