"""Parts the sources for the stages of the Containerfile; runs inside the build, with the standard library alone.

`parts.py requirements PYPROJECT LOCK FOLDER` writes what each image wants, one file an image, and the lock beside it.
`parts.py compile-inputs SOURCES FOLDER` copies what the compiler reads, and nothing else.
`parts.py prune FOLDER` leaves what an interpreter imports, and compiles its byte code.
`parts.py undocumented FOLDER` writes, below it, the byte code of all that a sidecar imports, without docstrings.

Each answer depends on content alone (times are set to one fixed moment), so that a later stage is built again only if
what it takes has changed.
"""

import ast
import compileall
import importlib._bootstrap_external
import importlib.util
import os
import py_compile
import shutil
import sys
import tomllib
from collections.abc import Callable
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


def undocumented(target: Path) -> None:
    from proxy import lean

    lean.install()
    import proxy.app
    import proxy.workers.carrying  # noqa: F401

    specs = [module.__spec__ for module in sys.modules.values() if getattr(module, "__spec__", None)]
    for path in sorted({spec.origin for spec in specs if spec and spec.origin and spec.origin.endswith(".py")}):
        written = target / importlib.util.cache_from_source(path).lstrip("/")
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(without_docstrings(Path(path)))
    settle(target)


def without_docstrings(path: Path) -> bytes:
    """A module's byte code, as `unchecked-hash` has it. Those of classes stay: dataclasses would write others instead,
    and load `inspect` for it."""
    source = path.read_bytes()
    tree = ast.parse(source, str(path))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    code = compile(tree, str(path), "exec", dont_inherit=True)
    # What `py_compile` does with a file's text; there is no public function that takes code.
    pack = importlib._bootstrap_external._code_to_hash_pyc  # type: ignore[attr-defined]
    return bytes(pack(code, importlib.util.source_hash(source), False))


def settle(target: Path) -> None:
    for folder, _, files in os.walk(target):
        for name in (*files, "."):
            os.utime(Path(folder, name), (MOMENT, MOMENT))


COMMANDS: dict[str, Callable[..., None]] = {
    "requirements": requirements,
    "compile-inputs": compile_inputs,
    "prune": prune,
    "undocumented": undocumented,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
