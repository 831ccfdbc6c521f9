"""What `make setup` installs: packages.sh as a machine runs it whose packages are not ours to change.

apt-get and dpkg-query are small programs here that write down how they were called and remember what is installed;
everything else on the path is the machine's own.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.ansible.kit import COLLECTION, may_sandbox

SCRIPT: Final = COLLECTION / "files/packages.sh"
TOOLS: Final = ("sh", "chmod", "rm", "cat", "printf", "grep", "mount")
DPKG_QUERY: Final = """#!/bin/sh
for package; do :; done
grep -qx "$package" "$BOOK/installed" && printf installed
"""
IN_A_SANDBOX: Final = """mount -t tmpfs tmpfs /usr/sbin || exit 98
"$0" || exit
[ ! -e /usr/sbin/policy-rc.d ] || exit 99
"""
GCC: Final = """#!/bin/sh
input=$(cat)
case $input in *"<{header}>"*) exit 1 ;; esac
printf "%s\\n" "$input" | PATH=/usr/bin:/bin {compiler} "$@"
"""
APT_GET: Final = """#!/bin/sh
echo "$*" >> "$BOOK/calls"
[ -x /usr/sbin/policy-rc.d ] && echo guarded >> "$BOOK/calls"
[ "$1" = install ] || exit 0
for package; do
    case $package in install|-*) ;; *) echo "$package" >> "$BOOK/installed" ;; esac
done
"""


class Machine:
    """A path of chosen programs, and a book in which packages are kept."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.book = folder / "bin", folder / "book"
        self.bin.mkdir()
        self.book.mkdir()
        (self.book / "installed").touch()
        for name in TOOLS:
            self.borrow(name)

    def borrow(self, name: str) -> None:
        found = shutil.which(name)
        assert found is not None
        (self.bin / name).symlink_to(os.path.realpath(found))

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def debian(self, uid: int) -> None:
        self.program("dpkg-query", DPKG_QUERY)
        self.program("apt-get", APT_GET)
        self.program("id", f"#!/bin/sh\necho {uid}\n")

    def setup(self, *before: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "BOOK": str(self.book)}
        command = [*before, str(SCRIPT)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def calls(self) -> list[str]:
        book = self.book / "calls"
        return book.read_text().splitlines() if book.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")
def test_root_installs_what_is_missing_once(machine: Machine) -> None:
    machine.debian(uid=0)
    # The guard against services goes into /usr/sbin: this one is thrown away.
    unshare = shutil.which("unshare") or ""
    inside = (unshare, "--mount", "sh", "-c", IN_A_SANDBOX)
    first = machine.setup(*inside)
    assert first.returncode == 0, first.stderr
    update, guarded, install, guarded_too = machine.calls()
    assert update == "update -qq"
    assert guarded == guarded_too == "guarded"
    options = [word for word in install.split() if word.startswith("-")]
    assert options == ["-y", "-qq", "--no-install-recommends", "--no-remove"]
    assert {"gcc", "libssl-dev", "libnghttp2-dev", "python3-venv", "python3-dev"} <= set(install.split())
    assert first.stdout.startswith("setup: installing ca-certificates ")

    again = machine.setup(*inside)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(machine.calls()) == 4


def test_without_root_the_command_is_said_and_nothing_is_done(machine: Machine) -> None:
    machine.debian(uid=1000)
    (machine.book / "installed").write_text("gcc\nmake\n")
    done = machine.setup()
    assert done.returncode == 1
    assert "sudo apt-get install --no-install-recommends ca-certificates libc6-dev libnghttp2-dev" in done.stderr
    assert machine.calls() == []


def test_elsewhere_everything_that_is_missing_is_listed(machine: Machine) -> None:
    done = machine.setup()
    assert done.returncode == 1
    first, *listed = done.stderr.splitlines()
    assert first == "setup: this is not Debian or Ubuntu; install these yourself:"
    assert [line.split()[0] for line in listed[:4]] == ["gcc", "make", "ip", "iptables"]
    for what in ("C library", "OpenSSL, 3.0", "libnghttp2", "Python, 3.11 or later, with venv and headers"):
        assert [line for line in listed if what in line], what


@pytest.mark.parametrize(
    ("header", "named"), [("openssl/ssl.h", "OpenSSL, 3.0"), ("nghttp2/nghttp2.h", "libnghttp2"), ("none", "")]
)
def test_elsewhere_headers_are_looked_for_by_the_compiler(machine: Machine, header: str, named: str) -> None:
    """The real compiler, kept from finding one header."""
    for name in ("make", "ip", "iptables"):
        machine.borrow(name)
    compiler, python = shutil.which("gcc"), shutil.which("python3")
    if compiler is None or python is None:
        pytest.skip("no gcc or python3 here")
    machine.program("gcc", GCC.format(header=header, compiler=compiler))
    machine.program("python3", "#!/bin/sh\nexit 0\n")
    done = machine.setup()
    assert done.returncode == (1 if named else 0), done.stderr
    assert done.stderr.splitlines()[1:] == [line for line in done.stderr.splitlines() if named and named in line]
