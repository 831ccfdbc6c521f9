"""`make release` and `make version`: builds everything that users get into `dist/<version>/`, from a tag."""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import yaml

from release import extras, layout, locked, notes, packing, sbom, tree, versions, wheels
from release.versions import ReleaseError

ROOT: Final = Path(__file__).resolve().parents[2]
STACKS: Final = ("dev", "prod")
EXTRAS: Final = ("cli", "iac")
"""What the command needs of the package."""
INSTALLER: Final = ".ci/release/install.sh"
CONTAINERFILE: Final = "ansible/roles/images/files/Containerfile"
ROLE: Final = "ansible/roles/images/defaults/main.yml"


def build(root: Path, version: str, registry: str, target: Path, ready: Path | None) -> None:
    """Build a tag's release into a folder that appears whole or not at all."""
    commit = tree.tagged(root, version)
    epoch = tree.epoch(root, commit)
    with tempfile.TemporaryDirectory(prefix="tulle-release-") as folder:
        work = Path(folder)
        source, made = work / "source", work / "made"
        tree.export(root, commit, source)
        versions.refuse_disagreement(lambda path: (source / path).read_text(), version)
        made.mkdir()
        requirements = _python(source, work, made, version, epoch, ready)
        _say("collection and Pulumi package")
        extras.collection(source, made, version, epoch)
        pure = next(made.glob("*-none-any.whl"))
        extras.plugin(pure, requirements, made, version, epoch)
        digests = _images(source, work, made, version, registry, epoch)
        _say("manifests")
        refs = {name: f"{registry}/{name}@{each}" for name, each in digests.items()}
        (made / "images.json").write_text(json.dumps(refs, indent=2) + "\n")
        for stack in STACKS:
            extras.manifest(source, stack, refs, made)
        shutil.copyfile(source / INSTALLER, made / "install.sh")
        shutil.copyfile(source / CONTAINERFILE, made / "Containerfile")
        wheel = next(made.glob("*-linux_*.whl"))
        needed, changelog = wheels.needed(wheel, work), (source / versions.CHANGELOG).read_text()
        tag, arch = wheel.stem.removeprefix(f"tulle-{version}-"), platform.machine()
        text = notes.page(version, commit, registry, tag, needed, digests, arch, changelog)
        (made / "README.md").write_text(text)
        packing.write_sums(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)


def _python(source: Path, work: Path, made: Path, version: str, epoch: int, ready: Path | None) -> str:
    _say("wheel without compiled modules, and the sources")
    pure = wheels.pure(source, work, made, epoch)
    wheels.sources(source, pure, made, version, epoch)
    _say("wheel with compiled modules" + ("" if ready is None else f", as they are in {ready}"))
    wheels.compiled(source, work, made, epoch, ready)
    optional = tomllib.loads((source / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [requirement for extra in EXTRAS for requirement in optional[extra]]
    found = locked.needed((source / "requirements.lock").read_text(), wanted)
    text = locked.requirements_file(found)
    (made / "requirements.txt").write_text(text)
    sbom.write(sbom.of_packages(version, found), made / "sbom-tulle.cdx.json", epoch)
    return text


def _images(source: Path, work: Path, made: Path, version: str, registry: str, epoch: int) -> dict[str, str]:
    _say("images")
    folder = work / "layout"
    extras.images(source, folder)
    layout.named(folder, registry, version)
    found = layout.digests(folder)
    code_name = yaml.safe_load((source / ROLE).read_text())["images_release"]
    for name, digest in found.items():
        contents = layout.contents(folder, digest)
        sbom.write(sbom.of_image(name, version, code_name, contents), made / f"sbom-{name}.cdx.json", epoch)
    packing.tarball(made / "images.oci.tar", packing.members_of(folder), epoch)
    return found


def dry(root: Path, version: str, registry: str, target: Path) -> None:
    """The same from a throw-away clone in which the work tree as it is is tagged; compiled modules are the tree's."""
    with tempfile.TemporaryDirectory(prefix="tulle-release-dry-") as folder:
        clone = tree.throw_away(root, version, Path(folder) / "tulle")
        build(clone, version, registry, target, root)


def _say(what: str) -> None:
    print(f"release: {what}", flush=True)


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 with one sentence that says why there is no release."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("--version", default="", help="MAJOR.MINOR.PATCH; without it that of pyproject.toml")
    parser.add_argument("--registry", default="", help="where the images will be; without it that of Pulumi.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder that gets a folder VERSION")
    parser.add_argument("--dry", action="store_true", help="from a throw-away clone; needs no tag")
    parser.add_argument("--stamp", action="store_true", help="write the version into every file that repeats it")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        version = given.version or versions.found(versions.SOURCE, (ROOT / versions.SOURCE.path).read_text())
        if given.stamp:
            changed = tree.stamp(ROOT, version, datetime.now(UTC).date().isoformat())
            _say(f"{version} written to {', '.join(changed) or 'nothing, it is everywhere already'}")
            return 0
        registry = given.registry or _registry()
        target = given.output.resolve() / version
        if given.dry:
            dry(ROOT, version, registry, target)
        else:
            build(ROOT, version, registry, target, None)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    files = sorted(path for path in target.iterdir())
    for path in files:
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path.name}")
    print(f"release: {version} in {target}, {time.monotonic() - began:.0f} s")
    return 0


def _registry() -> str:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]["images.registry"]["default"]
    return str(declared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
