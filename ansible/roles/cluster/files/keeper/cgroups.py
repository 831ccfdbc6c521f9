"""One cgroup for the whole cluster, in version 1 or 2: membership in it is what makes a process ours.

Recorded ids alone cannot tell what containers have started; the kernel's own list of a cgroup can, survives our death,
and never names a process that is not ours.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# The members and the container shims; pods get a cgroup beside it from the kubelet.
SYSTEM = "system"
# One cgroup is given as much as one other, or as one login session: a node's whole work must not be squeezed into that
# when the machine is busy, so it weighs as much as one for each processor, which is what a kubelet gives its pods too.
WEIGHTS = {"cpu.shares": 1024, "cpu.weight": 100}
# Killed processes disappear at once unless the kernel is waiting for a device.
KILL_SECONDS = 15.0


def is_unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Every mounted hierarchy: the one of version 2, or each controller's of version 1 (and the unified one)."""
    if is_unified():
        return [ROOT]
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and Path(where).parent == ROOT and Path(where) not in found:
            found.append(Path(where))
    return found


def make(name: str) -> None:
    for hierarchy in hierarchies():
        for folder in (hierarchy / name, hierarchy / name / SYSTEM):
            folder.mkdir(exist_ok=True)
            # A cpuset of version 1 starts empty and takes no process until it has its parent's processors and memory.
            for file in ("cpuset.cpus", "cpuset.mems"):
                here, above = folder / file, folder.parent / file
                if not is_unified() and here.exists() and not here.read_text().strip():
                    here.write_text(above.read_text())
    if is_unified():
        for folder in (ROOT, ROOT / name):
            wanted = (folder / "cgroup.controllers").read_text().split()
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in wanted))
    for hierarchy in hierarchies():
        for file, weight in WEIGHTS.items():
            if (hierarchy / name / file).exists():
                (hierarchy / name / file).write_text(str(weight * (os.cpu_count() or 1)))


def enter(name: str) -> None:
    for hierarchy in hierarchies():
        (hierarchy / name / SYSTEM / "cgroup.procs").write_text(str(os.getpid()))


def folders(name: str) -> list[Path]:
    """The cluster's cgroups in every hierarchy, the deepest first."""
    found: list[Path] = []
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            found.append(Path(folder))
    return found


def processes(name: str) -> list[int]:
    found: set[int] = set()
    for folder in folders(name):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return sorted(found - {0, os.getpid()})


def kill(name: str) -> list[int]:
    """End every process in the cgroup, again until none is left to fork; returns those that would not end."""
    deadline = time.monotonic() + KILL_SECONDS
    while (left := processes(name)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return left


def remove(name: str) -> None:
    for folder in folders(name):
        # The kernel lets go of an emptied cgroup a moment after its last process has ended.
        for _ in range(100):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                time.sleep(0.02)
                continue
            break
