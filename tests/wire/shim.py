"""Builds the shim through which Python reaches the HTTP/1 codec, once for each version of either."""

import hashlib
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SOURCE = Path(__file__).with_name("http1_shim.pyx")
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
source, folder, root = sys.argv[1:]
extension = Extension("http1_shim", [source], extra_compile_args=["-O1"])
setup(name="shim", ext_modules=cythonize([extension], build_dir=folder, include_path=[root], quiet=True), script_args=[
    "--quiet", "build_ext", "--build-lib", folder, "--build-temp", folder])
"""


def load() -> Any:
    """The shim's module: `read`, `sniff_http`, `sniff_tls`."""
    for name in ("http1", "sniff"):
        importlib.import_module(f"proxy.wire.{name}")  # the shim takes its functions from there
    # Built in a folder of its own: setuptools would take the tree's pyproject.toml for the shim's.
    digest = hashlib.sha256()
    for path in (SOURCE, *sorted((ROOT / "proxy" / "wire").glob("*.pxd"))):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / f"shim-{digest.hexdigest()[:12]}-{sys.implementation.cache_tag}"
    built = list(folder.glob("http1_shim*.so"))
    if not built:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(SOURCE), str(folder), str(ROOT)],
            cwd=folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        built = list(folder.glob("http1_shim*.so"))
    spec = importlib.util.spec_from_file_location("http1_shim", built[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
