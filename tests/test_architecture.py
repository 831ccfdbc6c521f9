"""The laws of the tree: layers, module length, what `__init__` may hold, and that documents name what exists."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from components.cli.main import COMMANDS

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ("proxy", "components", "policies", "tests", "ansible", ".ci")
SOFT_LINES: Final = 400
HARD_LINES: Final = 600
LONG: Final[dict[str, str]] = {
    "proxy/inbound/accept.pyx": "the inbound path in one reading: each step a small class that hands over to the next",
    "proxy/io/transport.pyx": "plain and TLS halves of one state machine over one descriptor",
    "proxy/stack/http1_server.pyx": "one connection's requests, in order, with all the ways in which they end",
    "proxy/wire/http1.pyx": "one codec: head, framing and chunks share their tables and their scratch space",
    "tests/unit/test_control_client.py": "one conversation partner, many conversations",
}
"""Modules over the soft ceiling, each with the reason; the list only shrinks."""
GENERATED: Final = re.compile(r"_pb2(_grpc)?\.pyi?$")

BANNED_IN_CYTHON: Final = {
    "proxy": r"components\b",
    "proxy/wire": r"(socket|ssl|asyncio|uvloop|proxy\.(io|tls|stack|inbound|outbound|control|admin))\b",
    "proxy/inbound": r"proxy\.outbound\b",
    "proxy/outbound": r"proxy\.inbound\b",
}
"""Folder -> what its .pyx, .pxd and .pxi files may not import: import-linter cannot see into those."""


def files(*suffixes: str) -> Iterator[Path]:
    """Sources written by hand."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and not GENERATED.search(path.name) and "__pycache__" not in path.parts:
                yield path


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_layers_are_kept() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None, "import-linter is not installed: pip install -e .[dev]"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_modules_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in files(".py", ".pyx", ".pxd", ".pxi")}
    assert not {name: count for name, count in lengths.items() if count > HARD_LINES}
    assert not {name: count for name, count in lengths.items() if count > SOFT_LINES and name not in LONG}
    assert not [name for name in LONG if lengths.get(name, 0) <= SOFT_LINES], "no longer long: take it off the list"


def holds_names_only(tree: ast.Module) -> bool:
    """A docstring, imports and plain assignments: nothing that runs."""
    return all(
        isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    )


def test_init_modules_hold_names_only() -> None:
    found = [name_of(path) for path in files(".py") if path.name == "__init__.py"]
    assert found
    assert not [name for name in found if not holds_names_only(ast.parse((ROOT / name).read_text()))]


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in files(".py")
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent


@pytest.mark.parametrize("folder", list(BANNED_IN_CYTHON))
def test_compiled_modules_keep_the_layers(folder: str) -> None:
    banned = re.compile(rf"^\s*(from|import|cimport)\s+{BANNED_IN_CYTHON[folder]}")
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files(".pyx", ".pxd", ".pxi")
        if name_of(path).startswith(f"{folder}/")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if banned.match(line)
    ]
    assert not found


def documents() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.glob("*.md")):
        yield path.name, path.read_text()


def code_in(text: str) -> Iterator[str]:
    """Lines of fenced blocks and inline code."""
    for block in re.findall(r"(?ms)^```[^\n]*\n(.*?)^```", text):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))


def test_make_targets_in_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-zA-Z][\w-]*)\s*:(?!=)", makefile))
    named = {
        (name, target)
        for name, text in documents()
        for line in code_in(text)
        for target in re.findall(r"(?:^|[\s;&|(])make ([a-z][a-z-]*)", line)
    }
    assert named, "no document names a make target"
    assert not {(name, target) for name, target in named if target not in targets}


def test_tulle_commands_in_documents_exist() -> None:
    named = {
        (name, command)
        for name, text in documents()
        for line in code_in(text)
        for command in re.findall(r"(?:^|[\s;&|(/])tulle ([a-z][a-z-]*)", line)
    }
    assert not {(name, command) for name, command in named if command not in COMMANDS}


def chains() -> list[tuple[str, list[str]]]:
    """ARCHITECTURE.md's lives of things: blocks marked `chain`, a module per line, `~` where a wire is crossed."""
    path = ROOT / "ARCHITECTURE.md"
    text = path.read_text() if path.is_file() else ""
    found = re.findall(r"(?ms)^```chain ?([^\n]*)\n(.*?)^```", text)
    return [(title or "chain", [line.split("#")[0].strip() for line in block.splitlines()]) for title, block in found]


def mentions(importer: Path, imported: Path) -> bool:
    """Whether one module names the other in an import (Python or Cython), or runs it by its module name."""
    dotted = ".".join(imported.relative_to(ROOT).with_suffix("").parts)
    package, _, module = dotted.rpartition(".")
    patterns = (
        rf"(?m)^\s*(from|import|cimport)\s+{re.escape(dotted)}\b",
        rf"(?m)^\s*from\s+{re.escape(package)}\s+c?import\s+[^\n]*\b{re.escape(module)}\b",
        rf"(?s)from\s+{re.escape(package)}\s+c?import\s+\([^)]*\b{re.escape(module)}\b",
        rf"[\"']{re.escape(dotted)}[\"']",
    )
    text = importer.read_text()
    return any(re.search(pattern, text) for pattern in patterns)


def test_the_lives_in_architecture_can_be_walked() -> None:
    found = chains()
    assert len(found) >= 4, (
        "ARCHITECTURE.md tells the lives of a connection, a resource, an injected pod, a certificate"
    )
    broken = []
    for title, lines in found:
        modules = [None if line.startswith("~") else ROOT / line for line in lines if line]
        broken += [f"{title}: {path} does not exist" for path in modules if path is not None and not path.is_file()]
        broken += [
            f"{title}: {name_of(first)} does not import {name_of(second)}"
            for first, second in pairwise(modules)
            if first is not None and second is not None and first.is_file() and not mentions(first, second)
        ]
    assert not broken
