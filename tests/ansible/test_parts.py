"""The parts of the sources that each stage of a build takes."""

import importlib.util
from pathlib import Path

import pytest

from tests.ansible.kit import load

parts = load("roles/images/files/parts.py")

PYPROJECT = """
[build-system]
requires = ["setuptools==1", "cython==2"]

[project]
name = "tulle"
version = "0.1.0"
dependencies = ["always"]

[project.optional-dependencies]
proxy = ["fast"]
control = ["grpcio", "fast"]
dev = ["pytest"]

[tool.setuptools]
packages = ["proxy"]

[[tool.setuptools.ext-modules]]
name = "proxy.wire"

[tool.setuptools.data-files]
"share/tulle" = ["Pulumi.yaml"]

[tool.ruff]
line-length = 120
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    for name in ("proxy/__init__.py", "proxy/wire.pyx", "proxy/wire.pxd", "proxy/app.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "requirements.lock").write_text("fast==1\n")
    return folder


def test_each_image_wants_its_own(sources: Path, tmp_path: Path) -> None:
    parts.requirements(sources / "pyproject.toml", sources / "requirements.lock", tmp_path / "wants")
    wants = {path.name: path.read_text().split() for path in (tmp_path / "wants").iterdir()}
    assert wants == {
        "proxy.txt": ["always", "fast"],
        "control.txt": ["always", "fast", "grpcio"],
        "build.txt": ["setuptools==1", "cython==2"],
        "lock.txt": ["fast==1"],
    }


def test_the_compiler_sees_no_python_but_the_packages(sources: Path, tmp_path: Path) -> None:
    parts.compile_inputs(sources, tmp_path / "inputs")
    names = {path.relative_to(tmp_path / "inputs").as_posix() for path in (tmp_path / "inputs").rglob("*.*")}
    assert names == {"pyproject.toml", "proxy/__init__.py", "proxy/wire.pyx", "proxy/wire.pxd"}


def test_settings_of_linters_are_none_of_the_compilers(sources: Path) -> None:
    kept = parts.compile_settings(PYPROJECT)
    assert "proxy.wire" in kept
    assert "cython==2" in kept
    assert "ruff" not in kept
    assert kept == parts.compile_settings(PYPROJECT.replace("line-length = 120", "line-length = 100"))
    assert "share/tulle" not in kept, "nor is what a wheel holds"


def test_what_is_left_is_what_an_interpreter_imports(sources: Path) -> None:
    (sources / "proxy/wire.cpython-27-x86_64-linux-gnu.so").write_bytes(b"")
    (sources / "proxy/__pycache__").mkdir()
    (sources / "proxy/__pycache__/app.cpython-27.pyc").write_bytes(b"")
    parts.prune(sources)
    left = {path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.suffix != ".pyc"}
    assert left == {
        "proxy",
        "proxy/__init__.py",
        "proxy/app.py",
        "proxy/__pycache__",
        "pyproject.toml",
        "requirements.lock",
    }
    assert len(list((sources / "proxy/__pycache__").glob("*.pyc"))) == 2


MODULE = '''
"""What it is."""
from __future__ import annotations


class Kept:
    """A class."""

    def method(self) -> str:
        """A method."""
        assert True, "asserts stay"
        return "value"


async def alone() -> None:
    """Nothing else."""
'''


def test_byte_code_without_docstrings_runs_as_the_source_does(tmp_path: Path) -> None:
    source, compiled = tmp_path / "module.py", tmp_path / "module.pyc"
    source.write_text(MODULE.lstrip())
    compiled.write_bytes(parts.without_docstrings(source))
    source.unlink()
    spec = importlib.util.spec_from_file_location("module", compiled)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.__doc__, module.Kept.__doc__) == (None, "A class.")
    assert module.Kept().method() == "value"
    assert (module.Kept.method.__doc__, module.alone.__doc__) == (None, None)
    assert module.Kept.method.__code__.co_firstlineno == 8


def test_a_module_that_does_not_compile_stops_the_build(sources: Path) -> None:
    (sources / "proxy/app.py").write_text("def broken(:\n")
    with pytest.raises(SystemExit, match="does not compile"):
        parts.prune(sources)
