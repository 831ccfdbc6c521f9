"""Checksums, bills of materials, and what is the same in every build."""

import hashlib
import json
import tarfile
from pathlib import Path

from release import extras, layout, tree, wheels

from tests.ansible.kit import ROOT
from tests.release.conftest import Release, run


def test_the_checksums_cover_every_file(release: Release) -> None:
    done = run("sha256sum", "--check", "--strict", "SHA256SUMS", folder=release.folder)
    checked = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert checked == {path.name for path in release.folder.iterdir()} - {"SHA256SUMS"}


def components(release: Release, name: str) -> dict[str, str]:
    bill = json.loads(release.file(f"sbom-{name}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    return {each["purl"].partition("@")[0]: each["version"] for each in bill["components"]}


def test_the_bills_name_what_is_inside(release: Release) -> None:
    proxy, control = components(release, "proxy"), components(release, "control")
    assert {f"pkg:deb/debian/{name}" for name in ("libssl3t64", "libnghttp2-14", "iptables", "libc6")} <= set(proxy)
    lock = (ROOT / "requirements.lock").read_text()
    for bill, name in ((proxy, "uvloop"), (control, "grpcio"), (components(release, "tulle"), "pulumi")):
        assert f"\n{name}=={bill[f'pkg:pypi/{name}']} " in lock
    assert "pkg:deb/debian/iptables" not in control
    assert "pkg:pypi/pulumi" not in control
    assert "pkg:deb/debian/prometheus" in components(release, "prometheus")


def test_a_bills_digest_is_the_archives(release: Release, tmp_path: Path) -> None:
    with tarfile.open(release.file("images.oci.tar")) as opened:
        opened.extractall(tmp_path, filter="data")
    for name, digest in layout.digests(tmp_path).items():
        blob = (tmp_path / "blobs" / digest.replace(":", "/")).read_bytes()
        assert hashlib.sha256(blob).hexdigest() == digest.partition(":")[2]
        bill = json.loads(release.file(f"sbom-{name}.cdx.json").read_text())
        assert bill["metadata"]["component"]["hashes"][0]["content"] == digest.partition(":")[2]


def test_a_layer_that_takes_a_package_away_is_believed(tmp_path: Path) -> None:
    def status(name: str) -> str:
        return f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nMaintainer: M\n"

    gone = status("c").replace("install ok installed", "deinstall ok config-files")
    assert [each.name for each in layout.packages(f"{status('a')}\n{status('b')}\n{gone}\n")] == ["a", "b"]


def test_a_second_build_is_the_same_to_the_byte(release: Release, tmp_path: Path) -> None:
    """Of everything that is said to be; in another folder, from another clone."""
    clone = tree.throw_away(ROOT, release.version, tmp_path / "clone")
    with tarfile.open(release.file(f"tulle-{release.version}.tar.gz")) as opened:
        epoch = int(next(iter(opened)).mtime)
    source, made = tmp_path / "source", tmp_path / "made"
    tree.export(clone, f"v{release.version}", source)
    made.mkdir()
    pure = wheels.pure(source, tmp_path / "work", made, epoch)
    wheels.sources(source, pure, made, release.version, epoch)
    extras.collection(source, made, release.version, epoch)
    extras.plugin(pure, (release.folder / "requirements.txt").read_text(), made, release.version, epoch)
    for path in made.iterdir():
        assert path.read_bytes() == (release.folder / path.name).read_bytes(), path.name
