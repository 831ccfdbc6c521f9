"""An image becomes a root: checked, whole or not at all, and gone without a trace."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.kit import may_sandbox, module

pytestmark = pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")

Entry = tuple[str, bytes | str | None, int]
"""A name; bytes for a file, a string for a link, None for a folder; a mode."""


def layer(*entries: Entry) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, held, mode in entries:
            member = tarfile.TarInfo(name)
            member.mode, member.uid = mode, 2102
            if held is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(held, str):
                member.type, member.linkname = tarfile.SYMTYPE, held
            else:
                member.size = len(held)
            archive.addfile(member, io.BytesIO(held) if isinstance(held, bytes) else None)
    return packed.getvalue()


def save(path: Path, *layers: bytes, tag: str = "localhost/tulle/proxy:1", claimed: str = "") -> str:
    """An archive as engines write it; the image's digest."""
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    config = json.dumps({"rootfs": {"diff_ids": [claimed or each for each in digests]}}).encode()
    name = hashlib.sha256(config).hexdigest()
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{name}.json", "RepoTags": [tag], "Layers": names}]
    files = {f"{name}.json": config, "manifest.json": json.dumps(manifest).encode()}
    files.update(zip(names, layers, strict=True))
    with tarfile.open(path, "w") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return f"sha256:{name}"


def run(tmp_path: Path, check: bool = False, **more: Any) -> dict[str, Any]:
    given = {"archive": str(tmp_path / "image.tar"), "path": str(tmp_path / "roots/root"), "name": "example", **more}
    return module("image_root", given, check)


def test_layers_are_laid_on_each_other(tmp_path: Path) -> None:
    folders: list[Entry] = [("usr", None, 0o755), ("bin", "usr/bin", 0o777), ("usr/bin", None, 0o755)]
    below = layer(*folders, ("usr/bin/su", b"old", 0o4755))
    above = layer(("bin/.wh.su", b"", 0o644), ("bin/tool", b"new", 0o755))
    digest = save(tmp_path / "image.tar", below, above)
    assert run(tmp_path, check=True)["changed"] is True
    assert not (tmp_path / "roots").exists()
    done = run(tmp_path, digest=digest)
    root = Path(done["root"])
    assert os.readlink(root) == digest.replace(":", "-")
    assert [each.name for each in (root / "usr/bin").iterdir()] == ["tool"]
    assert (root / "usr/bin/tool").stat().st_uid == 0
    assert run(tmp_path)["changed"] is False


def test_nothing_is_setuid(tmp_path: Path) -> None:
    save(tmp_path / "image.tar", layer(("su", b"", 0o6755)))
    assert (Path(run(tmp_path)["root"]) / "su").stat().st_mode & 0o7777 == 0o755


def test_a_link_leads_nowhere_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    save(tmp_path / "image.tar", layer(("way", str(outside), 0o777), ("way/file", b"", 0o644)))
    run(tmp_path)
    assert list(outside.iterdir()) == []


def test_a_layer_that_was_changed_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path / "image.tar", layer(("file", b"", 0o644)), claimed="sha256:" + "0" * 64)
    assert "a layer has not the digest sha256:000" in run(tmp_path)["msg"]
    assert list((tmp_path / "roots/root").iterdir()) == []


def test_what_is_no_such_image(tmp_path: Path) -> None:
    digest = save(tmp_path / "image.tar", layer(("file", b"", 0o644)), tag="registry.example:5000/tulle/control:2")
    assert "0 images named 'proxy'; in it are: control" in run(tmp_path)["msg"]
    wanted = "sha256:" + "1" * 64
    assert run(tmp_path, image="control", digest=wanted)["msg"].endswith(
        f"the image has the digest {digest}, and {wanted} is wanted"
    )
    assert "No such file" in run(tmp_path, archive=str(tmp_path / "none.tar"))["msg"]
    assert not (tmp_path / "roots").exists()


def test_users_go_one_by_one(tmp_path: Path) -> None:
    first = save(tmp_path / "image.tar", layer(("file", b"1", 0o644))).replace(":", "-")
    run(tmp_path)
    run(tmp_path, name="other")
    second = save(tmp_path / "image.tar", layer(("file", b"2", 0o644))).replace(":", "-")
    run(tmp_path)
    roots = tmp_path / "roots/root"
    assert {each.name for each in roots.glob("sha256-*")} == {first, second}
    assert run(tmp_path, state="absent")["changed"] is True
    assert {each.name for each in roots.glob("sha256-*")} == {first}
    assert run(tmp_path, state="absent", name="other")["changed"] is True
    assert not (tmp_path / "roots").exists()
    assert run(tmp_path, state="absent")["changed"] is False


def test_a_program_runs_inside(tmp_path: Path) -> None:
    """With this machine's own shell as the image: its loader and libraries, and nothing else of it."""
    entries: list[Entry] = []
    listed = subprocess.run(["ldd", "/bin/cat"], capture_output=True, text=True, check=True).stdout
    needed = {word for word in listed.split() if word.startswith("/")} | {"/bin/cat"}
    for name in needed:
        entries.append((name.lstrip("/"), Path(name).read_bytes(), 0o755))
    save(tmp_path / "image.tar", layer(("etc", None, 0o755), ("etc/motd", b"inside", 0o644), *entries))
    before = mounts()
    done = run(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("bound")
    seen = subprocess.run(
        [done["inside"], "/bin/cat", "/etc/motd", f"{shared}/file", "/there"],
        env={**os.environ, "TULLE_BIND": f"{shared}:{shared}/file=/there"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == "insideboundbound"
    assert mounts() == before


def mounts() -> list[str]:
    """Where anything is mounted, but for names of networks: those come and go with the tests beside this one."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[2] != "nsfs"]
