"""Keeps the processes of Tulle's local cluster: `python3 keeper COMMAND cluster.json`, the commands as in `COMMANDS`.

What belongs here: reading the one settings file and the order of steps in each command. How a cgroup, a mount, an
interface or a process is handled is in the modules beside this one. Only the standard library is used, so that a
running cluster depends on no clone and no virtual environment.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cgroups
import checks
import members
import mounts
import network
import pods
from settings import Settings

USAGE = "usage: keeper {up|check|start|wait [MEMBER...]|settle|stop|status|clean} SETTINGS.json"
IN_THE_WAY = 3
# What is needed before anything can be declared to the cluster.
FIRST = ("containerd", "kube-apiserver")
# Everything is up within seconds once built; a member that is not ready after this long is not coming.
START_SECONDS = 120.0
# A kubelet with a hundred dead pods to start again on busy cores writes the last of them anew within this long.
SETTLE_SECONDS = 300.0
# More than these in one message help nobody.
MOST_TOLD = 8
# The API server drains its watchers and etcd syncs its log; past this long they are killed.
STOP_SECONDS = 20.0


def up(settings: Settings) -> int:
    """Have the members run with the settings of now; says whether it started them, or what is in the way."""
    running = members.keeper_of(settings) is not None
    if running and members.running_digest(settings) != members.digest(settings):
        running = False
    if not running:
        # Also what outlives a keeper that was killed: members that are still ending hold their ports.
        members.stop(settings, STOP_SECONDS)
    problems = [] if running else checks.problems(settings)
    print(json.dumps({"started": not running and not problems, "problems": problems}))
    if problems:
        return IN_THE_WAY
    # The DNS server is ready only once the cluster has been told of it, which takes a serving API server.
    return wait(settings) if running else start(settings) or wait(settings, *FIRST)


def check(settings: Settings) -> int:
    """Say what would keep the cluster from starting, each problem with its way out."""
    print(json.dumps(checks.problems(settings), indent=2))
    return 0


def start(settings: Settings) -> int:
    """Start a keeper unless one is running; returns once it is prepared, before its members are ready."""
    if members.keeper_of(settings):
        return 0
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        daemonize(settings)
        try:
            prepare(settings)
            keeper = members.Keeper(settings)
        except (OSError, subprocess.CalledProcessError) as error:
            os.write(writer, f"{error}\n".encode())
            os._exit(1)
        os.close(writer)
        keeper.run()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as complaints:
        complaint = complaints.read().strip()
    if complaint:
        print(f"keeper: {complaint}", file=sys.stderr)
        return 1
    return 0


def daemonize(settings: Settings) -> None:
    """Leave the caller's session and terminal, so that the cluster outlives the shell that started it."""
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    settings.logs.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "rb") as nothing, open(settings.logs / "keeper.log", "ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def prepare(settings: Settings) -> None:
    """What must be there before the first member: a cgroup, a mount namespace, the bridge and its routes."""
    home = mounts.home(cgroups.processes(settings.cgroup))
    if home is None:
        forget(settings)
    cgroups.make(settings.cgroup)
    cgroups.enter(settings.cgroup)
    if home is None:
        mounts.separate()
    else:
        # Containers of an earlier keeper still run; their mounts are in its mount namespace, so that one is joined.
        mounts.join(home)
    mounts.bind(settings)
    network.make(settings)


def forget(settings: Settings) -> None:
    """Begin as after a reboot: no container can be found again, so nothing may be left that speaks of one.

    A container without its shim is nobody's and is ended. The cgroups of ended containers must go: a kubelet asks the
    runtime for the process of each, again and again for three seconds, before it takes up its first pod.
    """
    left = cgroups.kill(settings.cgroup)
    if left:
        raise OSError(f"processes {left} of an earlier cluster do not end; is one of them in uninterruptible sleep?")
    cgroups.remove(settings.cgroup)
    mounts.forget_runtime_state(settings)


def wait(settings: Settings, *names: str) -> int:
    """Wait until these members serve, or all; on failure show the end of the log of each that does not."""
    deadline = time.monotonic() + START_SECONDS
    unready = [one for one in settings.members if not names or one.name in names]
    while unready and members.keeper_of(settings) and time.monotonic() < deadline:
        unready = [one for one in unready if not one.is_ready()]
        time.sleep(0.1 if unready else 0)
    if not unready and members.keeper_of(settings):
        return 0
    missing = ", ".join(one.name for one in unready)
    print(f"keeper: not ready: {missing or 'the keeper itself'}; the logs are in {settings.logs}", file=sys.stderr)
    for one in unready:
        log = settings.logs / f"{one.name}.log"
        if log.exists():
            print(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-5:]), file=sys.stderr)
    return 1


def settle(settings: Settings) -> int:
    """Wait until what the API server says of containers is so; until then nothing that it says can be built upon."""
    began = time.monotonic()
    while found := pods.look(settings):
        if not members.keeper_of(settings) or time.monotonic() - began > SETTLE_SECONDS:
            print(
                f"keeper: after {time.monotonic() - began:.0f} s the API server does not say what runs here: "
                + "; ".join(found[:MOST_TOLD])
                + (f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else "")
                + f"; see {settings.logs / 'kubelet.log'} and {settings.logs / 'containerd.log'}",
                file=sys.stderr,
            )
            return 1
        time.sleep(0.5)
    return 0


def stop(settings: Settings) -> int:
    """Stop the members and leave the containers: the next start finds them again."""
    members.stop(settings, STOP_SECONDS)
    return 0


def status(settings: Settings) -> int:
    keeper = members.keeper_of(settings)
    unready = [one.name for one in settings.members if not one.is_ready()]
    print(json.dumps({"keeper": keeper, "unready": unready, "digest": members.running_digest(settings)}))
    return 0 if keeper and not unready else 1


def clean(settings: Settings) -> int:
    """Undo everything that start did, and all that the cluster made since; safe to repeat, and after a crash."""
    # Nothing is stopped in order: what the members would save is removed with them.
    left = cgroups.kill(settings.cgroup)
    if left:
        print(f"keeper: processes {left} do not end; is one of them in uninterruptible sleep?", file=sys.stderr)
        return 1
    cgroups.remove(settings.cgroup)
    network.remove(settings)
    mounts.remove(settings)
    return 0


COMMANDS = {
    "up": up,
    "check": check,
    "start": start,
    "wait": wait,
    "settle": settle,
    "stop": stop,
    "status": status,
    "clean": clean,
}


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in COMMANDS:
        print(USAGE, file=sys.stderr)
        return 2
    command, settings, *names = arguments
    return COMMANDS[command](Settings.read(Path(settings)), *names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
