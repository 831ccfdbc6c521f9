"""From a work tree to another cluster: the role's own tasks push small images to a real registry, and write archives.

The work tree is small, everything else is what a user has: the playbook, buildah, and Debian's docker-registry, which
listens on loopback.
"""

import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.ansible.kit import BIN, ROOT, load, may_sandbox, message, module, playbook
from tests.iac.kit import fit_nodes
from tests.kit import debian
from tests.kit.waiting import until

inputs = load("roles/images/files/inputs.py")

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONTAINERFILE: Final = """
FROM scratch AS proxy
COPY proxy /proxy
USER 2102:2102

FROM scratch AS control
COPY components /components
USER 2103:2103

FROM scratch AS prometheus
COPY ansible /ansible
USER 65534:65534
"""


ENGINES: Final = ("buildah", *(name for name in ("podman",) if shutil.which(name)))
"""What the role can build with here; docker would need a daemon of the test's own."""


def why_not() -> str:
    if may_sandbox():
        return may_sandbox()
    missing = [name for name in ("buildah", "mmdebstrap", "apt-get") if shutil.which(name) is None]
    return f"no {', '.join(missing)} here; `make up` on Debian installs them" if missing else ""


pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs"), pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Bench:
    """A small work tree, and the folders that its images are built in."""

    tree: Path
    cache: Path
    state: Path

    def buildah(self, *arguments: str) -> str:
        driver = "overlay" if module("container_host", {"path": str(self.cache / "buildah")})["overlay"] else "vfs"
        storage = ("--root", f"{self.cache}/buildah/storage", "--runroot", f"{self.cache}/buildah/run")
        command = ["unshare", "--mount", "buildah", *storage, "--storage-driver", driver, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def play(self, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        given = json.dumps({"images_source_dir": str(self.tree), **settings})
        done = playbook(
            "images.yml",
            *("-e", given),
            TULLE_CACHE=str(self.cache),
            TULLE_STATE=str(self.state),
            # Podman's own storage is the user's.
            CONTAINERS_STORAGE_CONF=str(self.cache / "storage.conf"),
        )
        assert not check or done.returncode == 0, message(done)[-3000:]
        return done

    def written(self, name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.tree / "build" / name).read_text())
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    made = Bench(folder / "tree", folder / "cache", folder / "state")
    for path in (*inputs.BUILD, "proxy/__init__.py", "proxy/api/names.py", "components/web.py"):
        (made.tree / path).parent.mkdir(parents=True, exist_ok=True)
        (made.tree / path).write_text(f"# {path}\n")
    (made.tree / inputs.CONTAINERFILE).write_text(CONTAINERFILE)
    podman = "".join(f'{key} = "{made.cache}/podman/{key}"\n' for key in ("graphroot", "runroot"))
    made.cache.mkdir()
    (made.cache / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{podman}')
    # Stands for the Debian root, which takes half a minute and which these images do not use.
    made.buildah("commit", made.buildah("from", "scratch"), "debian:trixie-slim")
    return made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry on loopback with nothing in it."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "root")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(settings))
    server = debian.program("docker-registry", "usr/bin/docker-registry")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([server, "serve", str(folder / "config.yml")], stdout=log, stderr=log) as process,
    ):
        try:
            until("a registry that answers", lambda: answers(f"http://{address}/v2/"), 20)
            yield address
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        fetch(url)
    except URLError:
        return False
    return True


def fetch(url: str) -> bytes:
    with urlopen(Request(url, headers={"Accept": MANIFEST}), timeout=10) as response:
        content: bytes = response.read()
        return content


def pulled(reference: str) -> tuple[dict[str, Any], set[str]]:
    """An image's configuration and the files in it, as a node gets them that knows nothing but the reference."""
    host, _, rest = reference.partition("/")
    name, _, digest = rest.partition("@")
    raw = fetch(f"http://{host}/v2/{name}/manifests/{digest}")
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest
    described = json.loads(raw)

    def blob(part: dict[str, Any]) -> bytes:
        return fetch(f"http://{host}/v2/{name}/blobs/{part['digest']}")

    files: set[str] = set()
    for layer in described["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer))) as opened:
            files.update(entry.name for entry in opened if entry.isfile())
    return json.loads(blob(described["config"]))["config"], files


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_pushed_is_told_by_digest_and_can_be_pulled(bench: Bench, registry: str, engine: str) -> None:
    done = bench.play(images_registry=f"{registry}/tulle", images_engine=engine)
    refs = bench.written("images-pushed.json")
    assert set(refs) == {"proxy", "control", "prometheus"}
    for name, reference in refs.items():
        assert re.fullmatch(rf"{registry}/tulle/{name}@sha256:[0-9a-f]{{64}}", reference)
        assert reference in message(done)
    settings, files = pulled(refs["proxy"])
    assert settings["User"] == "2102:2102"
    assert files == {"proxy/__init__.py", "proxy/api/names.py"}
    assert pulled(refs["control"])[1] == {"components/web.py"}
    # A push is no load: what the local cluster has is not said to be anything else.
    assert not (bench.tree / "build/images.json").exists()
    # The tag in the registry is the content's hash, so that a second push of the same files is the same image.
    (tag,) = json.loads(fetch(f"http://{registry}/v2/tulle/proxy/tags/list"))["tags"]
    files_of_proxy = inputs.inputs(bench.tree, "proxy", inputs.listed(bench.tree))
    assert tag == inputs.tag(bench.tree, files_of_proxy)


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_stack_runs_what_was_pushed(bench: Bench, registry: str, stack: str, tmp_path: Path) -> None:
    """The line that `make push` prints, with `render` for `up`: every image is one that the registry gave a digest.

    Stack prod refuses proxies that are not pinned by one.
    """
    if not (bench.tree / "build/images-pushed.json").exists():
        bench.play(images_registry=f"{registry}/tulle")
    refs = f"images.refs=@{bench.tree}/build/images-pushed.json"
    nodes = f"nodes.report={fit_nodes(tmp_path, stack)}"
    command = [sys.executable, "-m", "components.cli.main", "render", "--stack", stack, "-c", refs, "-c", nodes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"^\s+(?:- )?image: (\S+)$", done.stdout, re.MULTILINE))
    assert named
    assert named <= set(bench.written("images-pushed.json").values())


def test_a_registry_that_is_not_there_is_said_to_be(bench: Bench) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        (bench.tree / "build/images-pushed.json").unlink(missing_ok=True)
        done = bench.play(check=False, images_registry=f"{address}/tulle")
    assert done.returncode != 0
    assert address in message(done)
    assert "connection refused" in message(done)
    assert not (bench.tree / "build/images-pushed.json").exists()


@pytest.mark.parametrize("given", ["https://registry.example/tulle", "registry.example/Tulle", "registry.example/t:1"])
def test_what_is_no_registry_is_refused_before_a_build(given: str, tmp_path: Path) -> None:
    done = playbook("images.yml", "-e", json.dumps({"images_registry": given}), TULLE_CACHE=str(tmp_path))
    assert done.returncode != 0
    assert f'images_registry is "{given}"' in message(done)
    assert "make push REGISTRY=registry.example/tulle" in message(done)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_there_is_said_to_be(bench: Bench) -> None:
    for absent in [name for name in ("podman", "docker") if not shutil.which(name)]:
        done = bench.play(check=False, images_engine=absent)
        assert done.returncode != 0
        assert f"images_engine is {absent}, and there is no such program here" in message(done)
    done = bench.play(check=False, images_engine="kaniko")
    assert "value of images_engine must be one of: buildah, docker, podman, got: kaniko" in message(done)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_archive_holds_every_image_under_its_name(bench: Bench, engine: str, tmp_path: Path) -> None:
    """What kind and k3d load into nodes; another storage takes each image out of it by name."""
    archive = tmp_path / "all/images.tar"
    bench.play(images_archive=str(archive), images_engine=engine)
    names = bench.written("images.json")
    assert set(names) == {"proxy", "control", "prometheus"}
    assert [path.name for path in archive.parent.iterdir()] == ["images.tar"]
    other = Bench(bench.tree, tmp_path / "other", bench.state)
    for name in names.values():
        other.buildah("pull", f"docker-archive:{archive}:{name}")
    listed = json.loads(other.buildah("images", "--json"))
    assert {name for image in listed for name in image["names"]} == set(names.values())


def test_a_layout_holds_every_image_by_digest(bench: Bench, tmp_path: Path) -> None:
    """What a release packs."""
    folder = tmp_path / "layout"
    bench.play(images_layout=str(folder))
    index = json.loads((folder / "index.json").read_text())
    names = {each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]}
    assert names == {"proxy", "control", "prometheus"}
    other = Bench(bench.tree, tmp_path / "other", bench.state)
    other.buildah("pull", f"oci:{folder}:proxy")
    done = bench.play(check=False, images_layout=str(folder), images_engine="docker")
    assert "images_layout is written by buildah alone, and images_engine is docker" in message(done)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("up", "CONTEXT=blue"), "make up CONTEXT=blue REGISTRY=registry.example/tulle"),
        (("push",), "make push REGISTRY=registry.example/tulle"),
    ],
)
def test_make_says_what_it_needs_before_it_begins(given: tuple[str, ...], told: str, tmp_path: Path) -> None:
    refs = tmp_path / "nothing.json"
    command = ["make", "--no-print-directory", "--assume-old=setup", *given, f"REFS={refs}"]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert told in done.stderr
