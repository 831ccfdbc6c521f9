"""A mount namespace of the cluster's own: what it mounts is seen by nobody else and goes when its last process goes.

Kubernetes' programs insist on folders such as /var/lib/kubelet and /run/containerd. In this namespace those are binds
of folders under the state folder, so that a container engine or a kubelet that the machine already has is never
touched.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import record
from settings import Settings

CLONE_NEWNS = 0x00020000
LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def separate() -> None:
    """A new namespace that still sees the machine's later mounts, and passes mounts on among its own members only."""
    _call("unshare", CLONE_NEWNS)
    subprocess.run(["mount", "--make-rslave", "/"], check=True)
    subprocess.run(["mount", "--make-rshared", "/"], check=True)


def home(processes: list[int]) -> int | None:
    """One of these that lives in the cluster's mount namespace, as shims do; none where no shim is left.

    Containers have a mount namespace each: their root is not the machine's, and shows no socket of containerd.
    """
    for pid in processes:
        if os.path.exists(f"/proc/{pid}/root/run/containerd/containerd.sock.ttrpc"):
            return pid
    return None


def join(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    try:
        _call("setns", descriptor, CLONE_NEWNS)
    finally:
        os.close(descriptor)


def _is_mounted(where: str) -> bool:
    return any(line.split()[4] == where for line in Path("/proc/self/mountinfo").read_text().splitlines())


def bind(settings: Settings) -> None:
    made = record.read(settings, "folders") or []
    for where, source in settings.binds.items():
        Path(source).mkdir(parents=True, exist_ok=True)
        missing = [folder for folder in (Path(where), *Path(where).parents) if not folder.exists()]
        made.extend(str(folder) for folder in missing if str(folder) not in made)
        record.write(settings, "folders", made)
        Path(where).mkdir(parents=True, exist_ok=True)
        if not _is_mounted(where):
            subprocess.run(["mount", "--bind", source, where], check=True)
    shield(settings)


def shield(settings: Settings) -> None:
    """Cover the machine-wide settings that a kubelet writes unasked with files of our own, which it may write."""
    folder = settings.state / "run" / "shielded"
    folder.mkdir(parents=True, exist_ok=True)
    for name in settings.shielded:
        real, cover = Path("/proc/sys", name), folder / name.replace("/", ".")
        if real.exists() and not _is_mounted(str(real)):
            cover.write_text(real.read_text())
            subprocess.run(["mount", "--bind", str(cover), str(real)], check=True)


def forget_runtime_state(settings: Settings) -> None:
    """Drop what programs expect to be gone after a reboot: with no process left, it describes nothing that exists."""
    for name in ("/run/containerd", "/run/kubernetes"):
        if name in settings.binds:
            shutil.rmtree(settings.binds[name], ignore_errors=True)


def mount_points() -> set[str]:
    """Where anything is mounted, in whichever process's mount namespace."""
    seen: dict[str, set[str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            home = os.readlink(process / "ns" / "mnt")
            if home not in seen:
                seen[home] = {line.split()[4] for line in (process / "mountinfo").read_text().splitlines()}
        except OSError:
            continue
    return set().union(*seen.values())


def remove(settings: Settings) -> None:
    """Unmount what is seen mounted below the state folder, and remove the mount points that were made for it."""
    below = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4].startswith(f"{settings.state}/")
    ]
    for where in sorted(below, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", where], check=True)
    used = mount_points()
    for folder in sorted(record.read(settings, "folders") or [], key=len, reverse=True):
        if folder in used:
            # A second cluster's: with the folder its mount would go too, although it is in another namespace.
            continue
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            # Someone else has put something there since; it is theirs now.
            continue
