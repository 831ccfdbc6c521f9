"""A second build of the proxy, made with other compiler flags, in a tree of its own under build/.

    tree = build("sanitize", ["-fsanitize=address"])
    subprocess.run([sys.executable, "-m", "pytest", "tests/wire"], cwd=tree, env=...)
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
COPIED: Final = ("proxy", "components", "policies", "tests", "ansible")
"""What the tests import or read."""
SECONDS: Final = 900.0
COMPILE: Final = """
import json, sys
from Cython.Build import cythonize
from setuptools import Extension, setup
folder, include, modules = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
extensions = cythonize([Extension(**each) for each in modules], build_dir=folder + "/c", include_path=[include],
                       nthreads=2, quiet=True)
setup(name="instrumented", packages=[], py_modules=[], ext_modules=extensions, script_args=[
    "--quiet", "build_ext", "-j2", "--build-lib", folder + "/lib", "--build-temp", folder + "/temp"])
"""


def build(name: str, flags: list[str], only: str = "proxy.") -> Path:
    """Compile what has changed since the last time, and lay the tree anew; returns it.

    `only` is how the modules' names begin that are built so; the others are those of the normal build.

    `flags` also stand in the environment of whoever runs the tree (`environment`), so that shims are built alike.
    """
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    described = [
        {
            "name": each["name"],
            "sources": [str(ROOT / path) for path in each["sources"]],
            "libraries": each.get("libraries", []),
        }
        for each in modules
        if each["name"].startswith(only)
    ]
    # In a folder of its own: setuptools would take the tree's pyproject.toml for this build's.
    subprocess.run(
        [sys.executable, "-c", COMPILE, str(folder), str(ROOT), json.dumps(described)],
        cwd=folder, env=environment(flags), check=True, timeout=SECONDS,
    )  # fmt: skip
    return _laid(folder, [each["name"] for each in described])


def environment(flags: list[str]) -> dict[str, str]:
    """What compiles with these flags, here and in the shims of a tree; those of the interpreter come before them."""
    linked = [flag for flag in flags if flag.startswith("-fsanitize=")]
    return {**os.environ, "CFLAGS": " ".join(flags), "LDFLAGS": " ".join(linked)}


def _laid(folder: Path, names: list[str]) -> Path:
    """The tree: the sources as they are now, the compiled modules beside them. What an earlier build of more modules
    has left may be older than what it has to fit.
    """
    tree = folder / "tree"
    kept = tree / "build"
    shutil.rmtree(folder / "kept", ignore_errors=True)
    if kept.exists():
        kept.rename(folder / "kept")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for each in COPIED:
        shutil.copytree(
            ROOT / each, tree / each, symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.html"),
        )  # fmt: skip
    shutil.copy2(ROOT / "pyproject.toml", tree)
    for name in names:
        module = Path(*name.split("."))
        for built in (folder / "lib").glob(f"{module}.*.so"):
            shutil.copy2(built, tree / module.parent)
    if (folder / "kept").exists():
        (folder / "kept").rename(kept)  # shims, which are known by what they are made of
    return tree
