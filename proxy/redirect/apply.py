"""Puts the rules into the kernel and looks whether they are there. Runs iptables; which rules they are is decided in
`rules`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.redirect import rules

TIMEOUT: Final = 60
"""Seconds for one run of iptables, waiting for the lock included."""
LOCK_WAIT: Final = 30
"""Seconds that iptables-legacy waits for whoever else holds its lock."""
_SUFFIXES: Final = {"nft": ("-nft",), "legacy": ("-legacy",), "auto": ("-nft", "-legacy", "")}
_STEMS: Final = {4: "iptables", 6: "ip6tables"}
_LOCK_FOLDERS: Final = ("/run", "/dev/shm", "/tmp")  # noqa: S108 (a lock file, opened by iptables itself)
"""Where the lock of iptables-legacy can lie: with a read-only root, /dev/shm is writable in every container."""


class RedirectError(RuntimeError):
    """The rules cannot be put in place; the message holds what each backend said."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One pair of programs: iptables-nft-save and iptables-nft-restore, or their like."""

    stem: str
    suffix: str

    @property
    def name(self) -> str:
        return f"{self.stem}{self.suffix}"

    @property
    def exists(self) -> bool:
        """Whether both programs are on PATH."""
        return all(shutil.which(f"{self.name}-{verb}") for verb in ("save", "restore"))

    def save(self) -> str:
        """The nat table as it is; raises RedirectError."""
        return _run([f"{self.name}-save", "-t", "nat"], "")

    def restore(self, lines: list[str]) -> None:
        """Put lines into the kernel, all or none; raises RedirectError."""
        wait = [] if self.suffix == "-nft" else ["-w", str(LOCK_WAIT)]
        _run([f"{self.name}-restore", "--noflush", *wait], "\n".join(lines) + "\n")


def backends(mode: str, version: int) -> list[Backend]:
    """The backends to try for one IP version, best first; raises RedirectError if none is installed."""
    found = [Backend(_STEMS[version], suffix) for suffix in _SUFFIXES[mode]]
    present = [backend for backend in found if backend.exists]
    if not present:
        raise RedirectError(f"none of {', '.join(backend.name for backend in found)} is installed")
    return present


def versions(if_inet6: Path = Path("/proc/net/if_inet6")) -> tuple[int, ...]:
    """The IP versions that need rules: 4 always, 6 if the pod can be reached over it."""
    try:
        has_ipv6 = rules.has_ipv6_address(if_inet6.read_text())
    except OSError:
        has_ipv6 = False
    return (4, 6) if has_ipv6 else (4,)


def apply(redirection: rules.Redirection, mode: str, version: int, say: Callable[[str], None]) -> Backend:
    """Put the rules of one IP version in place with the first backend that can; raises RedirectError."""
    failures = []
    for backend in _reused_first(backends(mode, version)):
        try:
            before = backend.save()
            say(f"# {backend.name}: before\n{before}")
            backend.restore(rules.restore_lines(redirection, version, before))
            after = backend.save()
            say(f"# {backend.name}: after\n{after}")
        except RedirectError as error:
            failures.append(str(error))
            continue
        lacks = rules.missing(redirection, version, after)
        if not lacks:
            return backend
        failures.append(f"{backend.name} accepted the rules but lacks: {'; '.join(lacks)}")
    raise RedirectError(f"IPv{version} rules could not be set: {'; '.join(failures)}")


def remove(mode: str, version: int, say: Callable[[str], None]) -> list[Backend]:
    """Take our rules out of every backend that holds some; raises RedirectError where one stays."""
    removed = []
    for backend in backends(mode, version):
        lines = rules.removal_lines(backend.save(), sheds_builtins=backend.suffix == "-nft")
        if lines:
            backend.restore(lines)
            after = backend.save()
            say(f"# {backend.name}: after\n{after}")
            if rules.mentions_chains(after):
                raise RedirectError(f"{backend.name} accepted the removal but holds our chains still")
            removed.append(backend)
    return removed


def check(redirection: rules.Redirection, mode: str, version: int) -> Backend:
    """The backend that holds the rules of one IP version; raises RedirectError if none does."""
    failures = []
    for backend in backends(mode, version):
        try:
            lacks = rules.missing(redirection, version, backend.save())
        except RedirectError as error:
            lacks = [str(error)]
        if not lacks:
            return backend
        failures.append(f"{backend.name} lacks {'; '.join(lacks)}")
    raise RedirectError(f"IPv{version} is not redirected: {'. '.join(failures)}")


def _reused_first(found: list[Backend]) -> list[Backend]:
    """Whoever holds our chains from an earlier run comes first: rules in two backends would both be followed."""

    def is_new(backend: Backend) -> bool:
        try:
            return not rules.mentions_chains(backend.save())
        except RedirectError:
            return True

    return sorted(found, key=is_new)


def environment(environ: Mapping[str, str], is_writable: Callable[[str], bool]) -> dict[str, str]:
    """The environment for iptables: its lock where something can be written."""
    if "XTABLES_LOCKFILE" in environ:
        return dict(environ)
    folder = next((folder for folder in _LOCK_FOLDERS if is_writable(folder)), _LOCK_FOLDERS[0])
    return {**environ, "XTABLES_LOCKFILE": f"{folder}/xtables.lock"}


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=environment(os.environ, _is_writable),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RedirectError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise RedirectError(f"{command[0]}: {_words(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def _words(stderr: str) -> str:
    return " ".join(line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("#"))


def _is_writable(folder: str) -> bool:
    # A file system mounted read-only is what matters here, and os.access asks the kernel about that too.
    return os.path.isdir(folder) and os.access(folder, os.W_OK)
