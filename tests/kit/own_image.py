"""An image of the proxy made of what is on this machine: the interpreter that runs the tests, the working tree's proxy,
iptables, and the libraries they load. For roles that unpack and run an image, where none is built.

It is no image to ship: `ansible/roles/images` makes those.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.kit.sidecar import ROOT

VERSION: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES: Final = f"usr/lib/{VERSION}/site-packages"
THIRD_PARTY: Final = ("uvloop", "cryptography", "cffi", "_cffi_backend*.so")
PROGRAMS: Final = ("env", "setpriv", "sh")
TABLES: Final = ("iptables", "ip6tables")
LEFT_OUT: Final = re.compile(r"/(__pycache__|test|idlelib|tkinter|ensurepip|site-packages|config-[^/]*|lib2to3)(/|$)")


def write(target: Path, tag: str = "localhost/tulle/proxy:own") -> None:
    """Write the archive, as engines save one image."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for link, leads in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
            _put(archive, link, leads=leads)
        files = dict(_files())
        files |= {_inside(library): library for library in _libraries(files.values())}
        for name in sorted(files):
            _put(archive, name, files[name])
        for program in (f"{stem}-nft{end}" for stem in TABLES for end in ("", "-save", "-restore")):
            _put(archive, f"usr/sbin/{program}", leads="xtables-nft-multi")
        _put(archive, "etc/passwd", content=b"root:x:0:0::/:/bin/sh\n")
        _put(archive, "etc/nsswitch.conf", content=b"hosts: files dns\n")
    data = layer.getvalue()
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]}}).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as archive:
        for file, content in {name: config, "layer.tar": data, "manifest.json": manifest}.items():
            _put(archive, file, content=content)


def _put(archive: tarfile.TarFile, name: str, file: Path | None = None, content: bytes = b"", leads: str = "") -> None:
    member = tarfile.TarInfo(name)
    if leads:
        member.type, member.linkname = tarfile.SYMTYPE, leads
        archive.addfile(member)
        return
    data = file.read_bytes() if file is not None else content
    member.size, member.mode = len(data), 0o755
    archive.addfile(member, io.BytesIO(data))


def _files() -> Iterator[tuple[str, Path]]:
    yield "usr/bin/python3", Path(sys.executable).resolve()
    for program in PROGRAMS:
        yield f"usr/bin/{program}", Path(str(shutil.which(program))).resolve()
    multi = Path(str(shutil.which("iptables-nft"))).resolve()
    yield "usr/sbin/xtables-nft-multi", multi
    library = Path(sysconfig.get_paths()["stdlib"])
    yield from _below(library, f"usr/lib/{VERSION}")
    yield from _below(ROOT / "proxy", f"{PACKAGES}/proxy")
    for pattern in THIRD_PARTY:
        for found in Path(sysconfig.get_paths()["purelib"]).glob(pattern):
            yield from _below(found, f"{PACKAGES}/{found.name}")
    for extensions in Path("/usr/lib").glob("*-linux-gnu/xtables"):
        yield from _below(extensions, _inside(extensions))


def _below(path: Path, name: str) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield name, path
    for each in path.rglob("*") if path.is_dir() else ():
        inner = each.relative_to(path).as_posix()
        if each.is_file() and not LEFT_OUT.search(f"/{inner}") and each.suffix not in (".c", ".a", ".pyx"):
            yield f"{name}/{inner}", each


def _libraries(files: Iterable[Path]) -> set[Path]:
    """What the loader brings to each program and module, the loader with them."""
    compiled = [str(file) for file in files if file.read_bytes()[:4] == b"\x7fELF"]
    listed = subprocess.run(["ldd", *compiled], capture_output=True, text=True, check=False).stdout
    found = {Path(word) for word in re.findall(r"(?:=> |^\s+)(/\S+)", listed, re.MULTILINE)}
    return found | {each for path in found for each in path.parent.glob("libnss_*.so.2")}


def _inside(path: Path) -> str:
    """A path of this machine in a root whose `/lib` leads to `/usr/lib`."""
    name = path.as_posix().lstrip("/")
    return f"usr/{name}" if name.startswith(("lib/", "lib64/")) else name
