"""Machines for roles to work on: this machine's own root, written to on a copy, with namespaces of its own.

A `Root` is an overlay over `/` whose upper layer is a tmpfs, with namespaces for network, processes and host name, held
by one process; all of it goes when that process ends. Ansible reaches it through `connection/machine.py`, several at
once too. Settings of the kernel that have no namespace (`fs`, `kernel`, `vm`, the size of conntrack) are copies inside,
so that nothing of a test reaches this machine. There is no systemd inside, and modules are the whole kernel's.

    with roots("one", "two") as machines:
        done = converge(machines, "node", {"node_clock_url": ""})
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.ansible.connection.machine import entering
from tests.ansible.kit import ROOT, message, playbook
from tests.kit.netns import Namespace

HOLD: Final = """
set -e
base=$1 name=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root" "$base/sys"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
hostname "$name"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
for each in tmp run; do mount -t tmpfs -o mode=1777 tmpfs "$each"; done
test ! -d /sys/fs/cgroup || mount --rbind /sys/fs/cgroup sys/fs/cgroup
for each in "$@"; do mkdir -p "./$each"; mount --rbind "$each" "./$each"; mount -o remount,bind,ro "./$each"; done
cp -r proc/sys/fs proc/sys/kernel proc/sys/vm "$base/sys" 2>/dev/null || true
for each in fs kernel vm; do mount --bind "$base/sys/$each" "proc/sys/$each"; done
if test -e proc/sys/net/netfilter/nf_conntrack_max; then
    cat proc/sys/net/netfilter/nf_conntrack_max > "$base/sys/conntrack"
    chmod 644 "$base/sys/conntrack"
    mount --bind "$base/sys/conntrack" proc/sys/net/netfilter/nf_conntrack_max
fi
# Ready only inside: whoever came earlier would be on this machine's own root.
exec chroot . sh -c 'echo ready; while :; do sleep 3600 & wait $!; done'
"""
"""Run in new namespaces: puts the root together, then stays in it, taking up the orphans as an init does."""

COMPARE: Final = r"""
import hashlib, json, os, stat, sys
base = sys.argv[1]
upper, merged = f"{base}/upper", f"{base}/root"

def print_of(path):
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return "gone"
    kind = stat.S_IFMT(found.st_mode)
    inner = ""
    if kind == stat.S_IFREG:
        inner = hashlib.sha256(open(path, "rb").read()).hexdigest()[:16]
    elif kind == stat.S_IFLNK:
        inner = os.readlink(path)
    return f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {inner}".strip()

different = {}
def compare(path):
    here, there = print_of(merged + path), print_of(path)
    if here != there:
        different[path] = here

for folder, folders, files in os.walk(upper):
    for name in [*folders, *files]:
        path = f"{folder}/{name}"[len(upper):]
        compare(path)
        # A folder that was removed and made again hides what was in it.
        if os.path.isdir(merged + path) and os.path.isdir(path):
            for below in os.listdir(path):
                if not os.path.lexists(f"{merged}{path}/{below}"):
                    compare(f"{path}/{below}")
print(json.dumps(different, sort_keys=True))
"""
"""Run in the holder's mount namespace: what differs from this machine's root, and how it is now."""

RULES: Final = """
for tool in iptables-legacy-save ip6tables-legacy-save; do "$tool" 2>/dev/null | grep '^[-:*]' | sed 's/ \\[.*//'; done
nft -s list ruleset 2>/dev/null
ip -o address; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
"""


@dataclass(frozen=True)
class Root:
    """One machine. `pid` is its holder as this side numbers it; `base` is only there in the holder's mounts."""

    name: str
    pid: int
    base: str
    namespace: Namespace

    def command(self, *command: str) -> list[str]:
        """A command line that runs inside."""
        return [*entering(self.pid), *command]

    def run(self, script: str, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a shell script inside to its end."""
        done = subprocess.run(
            self.command("sh", "-c", script), input=given, capture_output=True, text=True, timeout=120, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {script!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def read(self, path: str) -> str:
        """What a file inside holds."""
        return self.run(f"cat '{path}'").stdout

    def write(self, path: str, content: str, mode: str = "644") -> None:
        """Put a file inside."""
        self.run(
            f"mkdir -p \"$(dirname '{path}')\"; rm -f '{path}'; cat > '{path}'; chmod {mode} '{path}'", given=content
        )

    def exists(self, path: str) -> bool:
        """Whether there is such a path inside."""
        return self.run(f"test -e '{path}' -o -L '{path}'", check=False).returncode == 0

    def seal(self, writable: bool = False) -> None:
        """Make the root read-only, or writable again; `/tmp` and `/run` stay writable, as on image-based systems."""
        mode = "rw" if writable else "ro"
        subprocess.run(
            ["nsenter", "--target", str(self.pid), "--mount", "mount", "-o", f"remount,{mode}", f"{self.base}/root"],
            check=True,
        )

    def files(self) -> dict[str, str]:
        """Each path that is not as on this machine (mode, owner, hash or target, or `gone`); times do not count."""
        command = ["nsenter", "--target", str(self.pid), "--mount", sys.executable, "-c", COMPARE, self.base]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def rules(self) -> list[str]:
        """Rules of both backends and nftables, addresses and routes, without counters, and without the addresses that
        a link gives itself in its own time."""
        lines = self.run(RULES, check=False).stdout.splitlines()
        return [line for line in lines if "valid_lft" not in line and "fe80:" not in line]

    def settings(self) -> dict[str, str]:
        """The kernel settings that roles raise."""
        script = "cd /proc/sys; grep -rs '' net/ipv4 net/core net/bridge net/netfilter fs/inotify fs/file-max"
        skip = ("fs/file-nr", "nf_conntrack_count", "route/flush")
        lines = self.run(script, check=False).stdout.splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines) if not name.endswith(skip)}

    def state(self) -> dict[str, Any]:
        """All of it: two that are equal are the same machine."""
        return {"files": self.files(), "rules": self.rules(), "settings": self.settings()}

    def variables(self) -> dict[str, Any]:
        """What an inventory says of it."""
        return {
            "ansible_connection": "machine",
            "ansible_host": self.name,
            "machine_pid": self.pid,
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": "/tmp/.ansible",
            "ansible_async_dir": "/tmp/.ansible_async",
            "ansible_pipelining": True,
            "ansible_become": False,
        }


@contextmanager
def root(name: str, namespace: Namespace | None = None) -> Iterator[Root]:
    """One machine, in a network namespace of its own or in one that is given (plugged into a switch, say)."""
    with ExitStack() as stack:
        own = namespace
        if own is None:
            own = Namespace(name)
            stack.callback(own.close)
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"tulle-root-{name}-"))
        # The interpreter and this repository, wherever they are: a folder below /tmp would be hidden else.
        shown = sorted({str(ROOT), sys.prefix, sys.base_prefix} - {"/usr", "/usr/local", "/"})
        own_namespaces = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"]
        command = own.command(*own_namespaces, "sh", "-c", HOLD, "sh", base, name, *shown)
        holder = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(holder.kill)
        assert holder.stdout is not None
        said = holder.stdout.readline()
        assert said == "ready\n", f"the root {name} could not be put together"
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield Root(name, int(children[0]), base, own)


@contextmanager
def roots(*names: str) -> Iterator[tuple[Root, ...]]:
    """Several machines, each alone."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(root(name)) for name in names)


def inventory(machines: Sequence[Root], more: dict[str, Any] | None = None, group: str = "nodes") -> str:
    """The text of an inventory with these machines in one group, and what else `all` has (`more`: hosts, children)."""
    hosts = {each.name: each.variables() for each in machines}
    return json.dumps({"all": {"children": {group: {"hosts": hosts}}, **(more or {})}})


@dataclass
class Run:
    """How a play went, host by host."""

    returncode: int
    text: str
    changed: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)


def run(
    machines: Sequence[Root],
    play: str | Path,
    settings: dict[str, Any] | None = None,
    *arguments: str,
    more: Any = None,
) -> Run:
    """Run a playbook of the collection (by its name) or a file against these machines."""
    with tempfile.TemporaryDirectory(prefix="tulle-inventory-") as folder:
        path = Path(folder) / "hosts.yml"
        path.write_text(inventory(machines, more))
        given = ("-e", json.dumps(settings)) if settings else ()
        plugins = str(ROOT / "tests/ansible/connection")
        done = playbook(play, "-i", str(path), *given, *arguments, ANSIBLE_CONNECTION_PLUGINS=plugins)
    result = Run(done.returncode, message(done))
    for line in done.stdout.splitlines():
        name, _, counts = line.partition(" : ok=")
        if not counts:
            continue
        numbers = dict(pair.split("=") for pair in f"ok={counts}".split())
        result.changed[name.strip()] = int(numbers["changed"])
        if int(numbers["failed"]):
            result.failed.add(name.strip())
        if int(numbers["unreachable"]):
            result.unreachable.add(name.strip())
    return result


def converge(
    machines: Sequence[Root],
    role: str,
    settings: dict[str, Any] | None = None,
    *arguments: str,
    tasks: str = "main",
    hosts: dict[str, Any] | None = None,
) -> Run:
    """Run one role of the collection, or another of its task files (`tasks="reset"`); `hosts` has further settings of
    single machines.

    Without `.yml`: by these names Ansible finds the specifications of their arguments, by a file's it does not.
    """
    role_task = {"name": f"tulle.mesh.{role}", "tasks_from": tasks}
    task = {"name": "Run the role", "ansible.builtin.include_role": role_task}
    play = [{"name": "Converge", "hosts": "nodes", "gather_facts": False, "tasks": [task]}]
    with tempfile.TemporaryDirectory(prefix="tulle-play-") as folder:
        path = Path(folder) / "play.yml"
        path.write_text(json.dumps(play))
        return run(machines, path, settings, *arguments, more={"hosts": hosts} if hosts else None)


def prove(
    machine: Root,
    role: str,
    settings: dict[str, Any],
    reset: dict[str, Any] | None = None,
    tasks: str = "reset",
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """What holds for every role: check mode touches nothing and ends well, the second run changes nothing, and after
    a reset (`tasks` with `settings` and `reset`) the machine is what it was. `meanwhile` is called before the reset.
    """
    before = machine.state()
    looked = converge([machine], role, settings, "--check", "--diff")
    assert looked.returncode == 0, looked.text
    assert machine.state() == before, "check mode touched the machine"
    first = converge([machine], role, settings)
    assert first.returncode == 0, first.text
    assert first.changed[machine.name] > 0, f"nothing to do on a fresh machine: {first.text}"
    second = converge([machine], role, settings)
    assert second.returncode == 0, second.text
    assert second.changed[machine.name] == 0, second.text
    meanwhile()
    undone = converge([machine], role, {**settings, **(reset or {})}, tasks=tasks)
    assert undone.returncode == 0, undone.text
    after = machine.state()
    left = {kind: (before[kind], after[kind]) for kind in after if after[kind] != before[kind]}
    assert not left, f"the reset left something: {left}"


def may_make_roots() -> str:
    """Why no root can be made here; empty where one can."""
    if os.geteuid() != 0:
        return "roots need root"
    try:
        with root("try"):
            return ""
    except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"this machine makes no roots: {error}"
