"""Starts the members in order, restarts what ends, records their ids, and stops them in the reverse order."""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from settings import Member, Settings

# A member that dies at once is tried again soon, one that keeps dying is tried at this pace.
BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0)
# A member that has run for this long starts again with the shortest pause.
SETTLED_SECONDS = 30.0
# How long one member may hold up the start of those after it.
STEP_SECONDS = 30.0
# The API server waits for every client that watches; what it has written is in etcd by then.
MEMBER_STOP_SECONDS = 3.0
# A log past this size is turned over once, so that a cluster left running for weeks fills no disk.
LOG_BYTES = 64 * 1024 * 1024
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def birth(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: with the id it names one process, even if ids come again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def recorded(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(settings.pids.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def living(entry: dict[str, Any] | None) -> int | None:
    return int(entry["pid"]) if entry and birth(entry["pid"]) == entry["birth"] else None


def keeper_of(settings: Settings) -> int | None:
    return living(recorded(settings).get("keeper"))


def digest(settings: Settings) -> str:
    """What the members are started with: their settings, certificates and programs, as they are in the state folder."""
    whole = hashlib.sha256(settings.path.read_bytes())
    for path in sorted((*settings.path.parent.rglob("*"), *(settings.state / "pki").glob("*.crt"))):
        if path.is_file():
            whole.update(f"{path}\0".encode() + path.read_bytes())
    programs = settings.state / "bin"
    whole.update(os.readlink(programs).encode() if programs.is_symlink() else b"")
    return whole.hexdigest()[:12]


def running_digest(settings: Settings) -> str:
    return str(recorded(settings).get("digest", ""))


def stop(settings: Settings, seconds: float) -> None:
    """Ask the keeper to end its members and itself; then whatever is recorded and still lives is killed."""
    record = recorded(settings)
    keeper = living(record.get("keeper"))
    if keeper:
        os.kill(keeper, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while keeper and living(record.get("keeper")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for entry in [record.get("keeper"), *recorded(settings).get("members", {}).values()]:
        pid = living(entry)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            # Its ports are free only when it has ended.
            while living(entry) and time.monotonic() < deadline:
                time.sleep(0.05)
    settings.pids.unlink(missing_ok=True)


class Running:
    """A member, the process it is now, and when it may be started again."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.failures = 0
        self.not_before = 0.0


class Keeper:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.running = [Running(member) for member in settings.members]
        self.ending = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Recorded before the caller is told of success, so that whoever looks next finds this keeper.
        self._record()

    def run(self) -> None:
        for one in self.running:
            if self.ending:
                break
            self._start(one)
            self._await(one)
        while not self.ending:
            self._restart_what_ended()
            time.sleep(0.2)
        self._stop_all()

    def _end(self, *_: object) -> None:
        self.ending = True

    def _start(self, one: Running) -> None:
        log = self.settings.logs / f"{one.member.name}.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        one.started = time.monotonic()
        with open(log, "ab") as output:
            try:
                one.process = subprocess.Popen(
                    one.member.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                # A program that is not there, say: the others run on, and this one is tried again as any that ends.
                output.write(f"keeper: {error}\n".encode())
                one.process = subprocess.Popen(["false"])
        say(f"{one.member.name} started as {one.process.pid}")
        self._record()

    def _await(self, one: Running) -> None:
        """Hold the next member until this one serves: cheaper than letting it fail and back off."""
        deadline = time.monotonic() + STEP_SECONDS
        while not self.ending and time.monotonic() < deadline and not one.member.is_ready():
            self._restart_what_ended()
            time.sleep(0.1)

    def _restart_what_ended(self) -> None:
        now = time.monotonic()
        for one in self.running:
            if one.process is None:
                continue
            code = one.process.poll()
            if code is None:
                continue
            if not one.not_before:
                one.failures = 0 if now - one.started > SETTLED_SECONDS else one.failures + 1
                pause = BACKOFF_SECONDS[min(one.failures, len(BACKOFF_SECONDS) - 1)]
                one.not_before = now + pause
                say(f"{one.member.name} ended with {code}; starting it again in {pause} s")
            elif now >= one.not_before:
                one.not_before = 0.0
                self._start(one)

    def _stop_all(self) -> None:
        # The last first: etcd must outlive the API server, which otherwise waits for it.
        for one in reversed(self.running):
            if one.process is None or one.process.poll() is not None:
                continue
            one.process.terminate()
            try:
                one.process.wait(timeout=MEMBER_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            say(f"{one.member.name} stopped")

    def _record(self) -> None:
        def entry(pid: int) -> dict[str, Any]:
            return {"pid": pid, "birth": birth(pid)}

        content = {
            "keeper": entry(os.getpid()),
            "digest": digest(self.settings),
            "members": {one.member.name: entry(one.process.pid) for one in self.running if one.process},
        }
        self.settings.pids.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.settings.pids.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=2))
        temporary.replace(self.settings.pids)


def _die_with_parent() -> None:
    # A keeper that is killed takes its members along, and the next one starts from a known state; shims are not
    # members.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def say(message: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), message, flush=True)
    sys.stdout.flush()
