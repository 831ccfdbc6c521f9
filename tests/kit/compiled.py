"""Builds shims: small Cython modules through which Python reaches compiled code, once for each version of either."""

import hashlib
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
name, source, folder, root, *libraries = sys.argv[1:]
extension = Extension(name, [source], libraries=libraries, extra_compile_args=["-O1"])
setup(name="shim", ext_modules=cythonize([extension], build_dir=folder, include_path=[root], quiet=True), script_args=[
    "--quiet", "build_ext", "--build-lib", folder, "--build-temp", folder])
"""


def load(source: Path, *modules: str, libraries: tuple[str, ...] = ()) -> Any:
    """The shim of that source as a module. `modules` are the proxy's modules whose functions it takes, `libraries` what
    it calls beside them.
    """
    for module in modules:
        importlib.import_module(module)  # before the shim, which looks for them when it is loaded
    # Built in a folder of its own: setuptools would take the tree's pyproject.toml for the shim's.
    digest = hashlib.sha256()
    for path in (source, *sorted((ROOT / "proxy").glob("*/*.pxd"))):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / f"{source.stem}-{digest.hexdigest()[:12]}-{sys.implementation.cache_tag}"
    built = list(folder.glob(f"{source.stem}*.so"))
    if not built:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, source.stem, str(source), str(folder), str(ROOT), *libraries],
            cwd=folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        built = list(folder.glob(f"{source.stem}*.so"))
    spec = importlib.util.spec_from_file_location(source.stem, built[0])
    assert spec is not None
    assert spec.loader is not None
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    return shim
