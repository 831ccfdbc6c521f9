"""`install.sh` of a release: over HTTP and from a folder, as an ordinary user, against files that were exchanged."""

import functools
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from proxy.api import labels
from tests.ansible.kit import BIN
from tests.kit.sidecar import as_proxy_user
from tests.kit.tools import cache_folder
from tests.release.conftest import Release, run


class Home:
    """A user's home folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = folder / ".local/bin/tulle"
        self.place = folder / ".local/share/tulle-cli"

    def install(
        self, script: Path, *arguments: str | Path, before: tuple[str, ...] = (), check: bool = True
    ) -> CompletedProcess[str]:
        """Pipe the installer into a shell, as a user without rights where that can be."""
        who = as_proxy_user() if os.geteuid() == 0 else []
        command = (*before, *who, "sh", "-s", "--", *map(str, arguments))
        more = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "TULLE_PYTHON": os.path.realpath(sys.executable)}
        return run(*command, folder=self.folder, given=script.read_text(), more=more, check=check)

    def left(self) -> set[str]:
        """What there is of an installation."""
        return {str(path.relative_to(self.folder)) for path in (self.command, self.place) if os.path.lexists(path)}


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="tulle-home-"))
    if os.geteuid() == 0:
        os.chown(folder, labels.PROXY_UID, labels.PROXY_UID)
    yield Home(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def dist(release: Release) -> Iterator[Path]:
    """The release where every user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="tulle-dist-"))
    for name in (*os.listdir(release.folder),):
        if not name.endswith(".tar"):
            shutil.copy(release.folder / name, folder / name)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wheelhouse(release: Release) -> Iterator[Path]:
    """What requirements.txt names, fetched once for each content of it and kept in the user's cache."""
    wanted = release.folder / "requirements.txt"
    kept = cache_folder() / "tools" / f"wheelhouse-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not kept.is_dir():
        for old in kept.parent.glob("wheelhouse-*"):
            shutil.rmtree(old)
        kept.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=kept.parent))
        run(
            str(BIN / "pip"), "download", "--quiet", "--require-hashes", "--only-binary", ":all:",
            "--requirement", str(wanted), "--dest", str(work),
        )  # fmt: skip
        work.rename(kept)
    folder = Path(tempfile.mkdtemp(prefix="tulle-wheelhouse-"))
    folder.chmod(0o755)
    for path in kept.iterdir():
        shutil.copy(path, folder / path.name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(dist: Path) -> Iterator[str]:
    """The release behind HTTP, on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(dist)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(900)  # pip installs everything twice
def test_over_http_again_and_removed(home: Home, dist: Path, served: str, wheelhouse: Path, release: Release) -> None:
    script = dist / "install.sh"
    done = home.install(script, "--wheelhouse", wheelhouse, served)
    assert f"tulle: {release.version} is installed" in done.stdout
    assert f"next: {home.command} config explain" in done.stdout
    assert release.version in run(str(home.command), "version", "--client").stdout
    assert "image:" in run(str(home.command), "render", "--stack", "dev", folder=home.folder).stdout
    # Again: nothing is made anew, and only the checked files are fetched.
    made = (home.place / release.version / "pyvenv.cfg").stat().st_mtime_ns
    home.install(script, "--wheelhouse", wheelhouse, served)
    assert (home.place / release.version / "pyvenv.cfg").stat().st_mtime_ns == made
    # An installation that is not whole is made again, one of another version goes when the new one works.
    (home.place / release.version / ".whole").unlink()
    (home.place / "0.0.1").mkdir()
    # Without a network at all, from a folder.
    before = ("unshare", "--net") if os.geteuid() == 0 else ()
    home.install(script, "--wheelhouse", wheelhouse, dist, before=before)
    assert (home.place / release.version / "pyvenv.cfg").stat().st_mtime_ns != made
    assert not (home.place / "0.0.1").exists()
    home.install(script, "--uninstall")
    assert home.left() == set()
    assert "nothing is installed" in home.install(script, "--uninstall").stdout


@pytest.mark.parametrize("name", ["requirements.txt", "*-none-any.whl", "*-linux_*.whl"])
def test_a_file_that_was_exchanged_is_refused_by_name(home: Home, dist: Path, release: Release, name: str) -> None:
    (exchanged,) = dist.glob(name)
    whole = exchanged.read_bytes()
    exchanged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = home.install(dist / "install.sh", dist, check=False)
    finally:
        exchanged.write_bytes(whole)
    assert done.returncode == 1
    assert f"{exchanged.name} is not the file that was released" in done.stderr
    assert home.left() == set()


def test_other_lists_of_checksums_are_refused(home: Home, dist: Path) -> None:
    script = dist / "install.sh"
    done = home.install(script, "--sums", "0" * 64, dist, check=False)
    assert "SHA256SUMS is not the one that --sums names" in done.stderr
    sums = dist / "SHA256SUMS"
    whole = sums.read_text()
    sums.write_text("".join(line for line in whole.splitlines(True) if "requirements.txt" not in line))
    try:
        assert "does not name requirements.txt" in home.install(script, dist, check=False).stderr
    finally:
        sums.write_text(whole)
    assert "cannot be fetched" in home.install(script, "http://127.0.0.1:1", check=False).stderr
    assert home.left() == set()


def test_what_others_made_is_left_alone(home: Home, dist: Path) -> None:
    script = dist / "install.sh"
    home.command.parent.mkdir(parents=True)
    home.command.write_text("theirs")
    for arguments in ((dist,), ("--uninstall",)):
        done = home.install(script, *arguments, check=False)
        assert done.returncode == 1
        assert f"{home.command} is there and was not made by this installer: set TULLE_BIN" in done.stderr
    assert home.command.read_text() == "theirs"
    home.command.unlink()
    home.place.mkdir(parents=True)
    done = home.install(script, "--uninstall", check=False)
    assert f"{home.place} is there and was not made by this installer: set TULLE_HOME" in done.stderr
    assert home.place.is_dir()
