#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Unpack an image into a folder of this machine, whole or not at all, so that its programs run without an engine."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_root
short_description: Unpack an image into a root of its own
version_added: "0.1.0"
description:
  - Takes one image out of an archive (as C(make images ARCHIVE=) and C(docker save) write them), checks every layer
    against the image's configuration, and unpacks it into C(path/sha256-...), named by the digest of the configuration.
  - The link C(path/name) leads there and changes in one step. Each user of a root has a link of its own; a root that no
    link leads to any more is removed one change later, so that what still runs from it goes on.
  - Beside the link are two launchers. C(path/name.python) runs the image's Python through the image's own loader, with
    this machine's files in view. C(path/name.inside) runs any program of the image with the image as its root.
  - Everything in a root belongs to root, and nothing in it is setuid.
options:
  archive:
    description: The archive, on this machine. Required with I(state=present).
    type: path
  image:
    description: Last part of the image's name, without a tag; picks one of several in the archive.
    type: str
    default: proxy
  digest:
    description: The digest that the image's configuration must have (C(sha256:...)); empty for any.
    type: str
    default: ""
  path:
    description: The folder of all roots.
    type: path
    default: /var/lib/tulle/root
  name:
    description: Who uses the root; the name of the link.
    type: str
    required: true
  state:
    description: Whether the root is to be there.
    type: str
    choices: [present, absent]
    default: present
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Unpack the proxy's image
  tulle.mesh.image_root:
    archive: /var/cache/tulle/images.tar
    name: example
  register: root

- name: Ask its Python something
  ansible.builtin.command:
    argv: ["{{ root.python }}", -m, proxy.version]
  changed_when: false
"""

RETURN = r"""
digest:
  description: The digest of the image's configuration; empty when absent.
  type: str
  returned: always
root:
  description: The link that leads to the root.
  type: str
  returned: always
python:
  description: The launcher of the image's Python.
  type: str
  returned: always
inside:
  description: The launcher that makes the image the root.
  type: str
  returned: always
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from ansible.module_utils.basic import AnsibleModule

CHUNK = 1 << 20
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
"""How a layer says that a file, or all that was in a folder, is gone (OCI image layer specification)."""

PYTHON = """\
#!/bin/sh
# Runs the image's Python through the image's own loader, with this machine's files in view. Nothing of the machine's
# own Python or libraries is used.
root=$(readlink -f {link}) || exit 1
set -- "$root"/usr/bin/python3 "$@"
for libraries in "$root"/usr/lib/*-linux-gnu; do :; done
for loader in "$libraries"/ld-linux-*.so.* "$root"/usr/lib64/ld-linux-*.so.*; do ! test -e "$loader" || break; done
for packages in "$root"/usr/local/lib/python3*/dist-packages; do :; done
export PYTHONHOME="$root/usr" PYTHONPATH="$packages" PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
exec "$loader" --library-path "$libraries" "$@"
"""

INSIDE = """\
#!/bin/sh
# Runs a program of the image with the image as its root, in a mount namespace that goes with it. The machine's kernel
# file systems, its resolver and what TULLE_BIND names (`/here` or `/here=/there`, separated by colons) are seen.
root=$(readlink -f {link}) || exit 1
exec unshare --mount --propagation private -- sh -euc '
root=$1; shift
mount --bind "$root" "$root"
for place in proc sys dev; do mount --rbind "/$place" "$root/$place"; done
for place in run tmp; do mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/$place"; done
IFS=:
# Never one on top of another: when the machine replaces the file below, the kernel takes away what was mounted upon it.
case ":${{TULLE_BIND:-}}:" in *=/etc/resolv.conf:*) resolver= ;; *) resolver=/etc/resolv.conf ;; esac
for each in $resolver ${{TULLE_BIND:-}}; do
    place=${{each%%=*}} seen=${{each#*=}}
    test -e "$place" || continue
    if test -d "$place"; then mkdir -p "$root$seen"
    else mkdir -p "$root${{seen%/*}}"; test -e "$root$seen" || : > "$root$seen"; fi
    mount --bind "$place" "$root$seen"
done
cd "$root"
exec env -u TULLE_BIND PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin chroot "$root" "$@"
' sh "$root" "$@"
"""


class ArchiveError(Exception):
    """The archive has no such image, or is not what it says it is."""


class Counted:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data


def find(archive: tarfile.TarFile, image: str) -> tuple[str, dict[str, Any], list[str]]:
    """The digest, the configuration and the layers of the one image of that name."""
    try:
        entries = json.load(content(archive, "manifest.json"))
        named = [entry for entry in entries if image in map(short, entry.get("RepoTags") or [])]
    except (ValueError, TypeError, AttributeError) as error:
        raise ArchiveError(f"its manifest.json cannot be read ({error})") from None
    if len(named) != 1:
        there = sorted({short(tag) for entry in entries for tag in entry.get("RepoTags") or []})
        raise ArchiveError(f"it holds {len(named)} images named {image!r}; in it are: {', '.join(there) or 'none'}")
    text = content(archive, named[0]["Config"]).read()
    digest = hashlib.sha256(text).hexdigest()
    claimed = re.search(r"[0-9a-f]{64}", named[0]["Config"])
    if claimed is not None and claimed.group() != digest:
        raise ArchiveError(f"the configuration {named[0]['Config']} has the digest {digest}: copy the archive again")
    return f"sha256:{digest}", json.loads(text), named[0]["Layers"]


def short(tag: str) -> str:
    """`proxy` of `registry.example/tulle/proxy:1`."""
    return tag.rpartition("/")[2].partition(":")[0]


def content(archive: tarfile.TarFile, name: str) -> BinaryIO:
    try:
        found = archive.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise ArchiveError(f"it has no {name}; write one with 'make images ARCHIVE=build/images.tar'")
    return found  # type: ignore[return-value]


def unpack(layer: BinaryIO, wanted: str) -> None:
    """Put one layer into `/`, which is the new root already; its digest must be the wanted one."""
    packed = layer.read(2) == b"\x1f\x8b"
    layer.seek(0)
    counted = Counted(gzip.GzipFile(fileobj=layer) if packed else layer)  # type: ignore[arg-type]
    with tarfile.open(fileobj=counted, mode="r|") as opened:  # type: ignore[call-overload]
        # What a filter would refuse (links to absolute names) is in every distribution; the root is changed already.
        opened.extraction_filter = lambda member, _: member
        for member in opened:
            put(opened, member)
    while counted.read(CHUNK):
        pass
    if f"sha256:{counted.hash.hexdigest()}" != wanted:
        raise ArchiveError(f"a layer has not the digest {wanted}: copy the archive again")


def put(opened: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    target = os.path.normpath(os.path.join("/", member.name))
    folder, name = os.path.split(target)
    if name == OPAQUE:
        for each in os.listdir(folder):
            remove(os.path.join(folder, each))
    elif name.startswith(WHITEOUT):
        remove(os.path.join(folder, name[len(WHITEOUT) :]))
    elif not member.isdev():
        there = os.path.lexists(target)
        if there and not (member.isdir() and os.path.isdir(target)):
            remove(target)
        member.uid = member.gid = 0
        member.mode &= 0o1777 if member.isdir() else 0o777
        opened.extract(member, "/", numeric_owner=True)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def unpack_all(archive: tarfile.TarFile, layers: list[tuple[str, str]], root: Path) -> None:
    """Unpack into an empty folder, in a child whose root it is: no link in a layer leads out of it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        complaint = ""
        try:
            os.umask(0o022)
            os.chroot(root)
            os.chdir("/")
            for name, digest in layers:
                unpack(content(archive, name), digest)
            for place in ("proc", "sys", "dev", "run", "tmp"):
                os.makedirs(f"/{place}", exist_ok=True)
        except Exception as error:
            complaint = str(error) or type(error).__name__
        os.write(write, complaint.encode(errors="replace")[:4000])
        os._exit(1 if complaint else 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        complaint = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        raise ArchiveError(complaint or "the process that unpacked it was killed")


def make(archive: tarfile.TarFile, layers: list[tuple[str, str]], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        unpack_all(archive, layers, fresh)
        fresh.chmod(0o755)
        fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text() != text


def replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.replace(path)


def lead(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def prune(path: Path, kept: set[str]) -> None:
    """Remove the roots that no link leads to, and halves of killed runs."""
    kept = kept | {os.readlink(each) for each in path.iterdir() if each.is_symlink()}
    for each in path.iterdir():
        if each.name.startswith((".new-", "sha256-")) and each.name not in kept:
            shutil.rmtree(each)


def launchers(link: Path) -> dict[Path, str]:
    return {
        link.with_name(f"{link.name}.python"): PYTHON.format(link=link),
        link.with_name(f"{link.name}.inside"): INSIDE.format(link=link),
    }


def gone(link: Path, check: bool) -> bool:
    """Remove a user's link and launchers, with the root if it was the last; whether there was anything."""
    there = [each for each in (link, *launchers(link)) if os.path.lexists(each)]
    if there and not check:
        for each in there:
            each.unlink()
        prune(link.parent, set())
        for folder in (link.parent, link.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                break
    return bool(there)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path"},
            "image": {"type": "str", "default": "proxy"},
            "digest": {"type": "str", "default": ""},
            "path": {"type": "path", "default": "/var/lib/tulle/root"},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    given = module.params
    link = Path(given["path"]) / given["name"]
    places = {"root": str(link), "python": f"{link}.python", "inside": f"{link}.inside"}
    if not re.match(r"^[a-z][a-z0-9_]*$", given["name"]):
        module.fail_json(msg=f"name: {given['name']!r} is not a name such as 'proxy_host'")
    if given["state"] == "absent":
        module.exit_json(changed=gone(link, module.check_mode), digest="", **places)
    if not given["archive"]:
        module.fail_json(msg="archive: needed to be present; write one with 'make images ARCHIVE=build/images.tar'")
    try:
        with tarfile.open(given["archive"]) as archive:
            digest, config, names = find(archive, given["image"])
            if given["digest"] not in ("", digest):
                raise ArchiveError(f"the image has the digest {digest}, and {given['digest']} is wanted")
            digests = config["rootfs"]["diff_ids"]
            if len(names) != len(digests):
                raise ArchiveError(f"{len(names)} layers and {len(digests)} digests: copy the archive again")
            layers = list(zip(names, digests))  # noqa: B905 (Pythons of nodes are older than strict=)
            target = link.with_name(digest.replace(":", "-"))
            before = os.readlink(link) if link.is_symlink() else ""
            stale = {path: text for path, text in launchers(link).items() if differs(path, text)}
            changed = before != target.name or bool(stale) or not target.is_dir()
            if changed and not module.check_mode:
                if not target.is_dir():
                    make(archive, layers, target)
                for path, text in stale.items():
                    replace(path, text)
                lead(link, target.name)
                prune(link.parent, {before})
    except (OSError, tarfile.TarError, ArchiveError, KeyError) as error:
        module.fail_json(msg=f"archive: {given['archive']}: {error}")
    module.exit_json(changed=changed, digest=digest, **places)


if __name__ == "__main__":
    main()
