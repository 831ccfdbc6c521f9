"""Programs of the Go module `tests/kit/go`, built once into the user's cache: h2spec, gRPC's interop pair, fortio.

The Go is found as the cluster's role finds it: on PATH or in /usr/local/go, else Debian's; where it is older than the
module file asks for, the toolchain that is named here is taken, which is a module like any other.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("go")
TOOLCHAIN: Final = "v0.0.1-go1.26.8"
"""Taken where the Go at hand is older than the module file wants."""
FOLDERS: Final = ("/usr/local/go/bin", "/usr/lib/go/bin")
BUILD_SECONDS: Final = 1200
PROGRAMS: Final = {
    "h2spec": "h2spec", "fortio": "fortio", "interop-client": "interop-client", "interop-named": "interop-named",
    "server": "interop-server",
}  # fmt: skip
"""What `go build` calls a program, and what it is called here."""


class ToolError(RuntimeError):
    """A program that cannot be had; says why."""


def cache_folder() -> Path:
    """Where this user's builds are kept; the cluster's role keeps its own there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TULLE_CACHE") or base / "tulle")


def key() -> str:
    """Names one build: another source, another module or another toolchain is another folder."""
    digest = hashlib.sha256(TOOLCHAIN.encode())
    for path in sorted(each for each in SOURCE.rglob("*") if each.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def tool(name: str) -> str:
    """The path of a program by the name it has here; builds all of them when they are not there."""
    folder = cache_folder() / "tools" / f"go-{key()}"
    if not folder.is_dir():
        build(folder)
    return str(folder / name)


def build(folder: Path) -> None:
    """Build every program, and move them into their place only when all are there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        for old in folder.parent.glob("go-*"):
            shutil.rmtree(old, ignore_errors=True)
        work = folder.with_name(f"{folder.name}.new")
        work.mkdir()
        try:
            print("tools: building the Go programs, some minutes, once", file=sys.stderr, flush=True)
            _build(work)
            (work / "bin").rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _build(work: Path) -> None:
    source = work / "source"
    shutil.copytree(SOURCE, source)
    environ = {
        **os.environ, "CGO_ENABLED": "0", "GOCACHE": str(work / "cache"), "GOMODCACHE": str(work / "modules"),
        # Modules are written so that they can be removed again as any file can.
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false", "GOTOOLCHAIN": "local",
    }  # fmt: skip
    command = _go(environ, work)
    _run([command, "build", "-trimpath", "-ldflags=-s -w", f"-o={work / 'bin'}/", "tool", "./..."], environ, source)
    for theirs, ours in PROGRAMS.items():
        if theirs != ours:
            (work / "bin" / theirs).rename(work / "bin" / ours)


def _go(environ: dict[str, str], work: Path) -> str:
    """A Go that is new enough."""
    found = shutil.which("go") or shutil.which("go", path=os.pathsep.join(FOLDERS))
    if found is None:
        raise ToolError("no Go: `make cluster` installs it, or: apt-get install golang-go")
    wanted = re.search(r"^go (\d+)\.(\d+)", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    has = re.match(r"go(\d+)\.(\d+)", _run([found, "env", "GOVERSION"], environ, work))
    if wanted is None or has is None:
        raise ToolError(f"{found} does not say its version")
    if tuple(map(int, has.groups())) >= tuple(map(int, wanted.groups())):
        return found
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    module = f"golang.org/toolchain@{TOOLCHAIN}.linux-{machine}"
    there = Path(json.loads(_run([found, "mod", "download", "-json", module], environ, work))["Dir"])
    for part in ("bin", "pkg/tool"):
        for path in (there / part).rglob("*"):
            path.chmod(path.stat().st_mode | 0o100)
    return str(there / "bin" / "go")


def _run(command: list[str], environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
