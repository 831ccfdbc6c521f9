"""Bills of materials (CycloneDX 1.6, JSON; ECMA-424), checked against the published schema before they are written."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.layout import Contents
from release.locked import PROJECT, Entry, canonical
from release.versions import ReleaseError

LICENSE: Final = "Apache-2.0"


def of_packages(version: str, found: Iterable[Entry]) -> Bom:
    """Of the command and the components: what `requirements.txt` installs beside the wheel."""
    subject = Component(
        name="tulle", version=version, type=ComponentType.APPLICATION, bom_ref="tulle",
        licenses=[LicenseExpression(LICENSE)], purl=PackageURL("pypi", None, "tulle", version),
    )  # fmt: skip
    entries = list(found)
    libraries = {each.name: Component(
        name=each.name, version=each.version, type=ComponentType.LIBRARY,
        bom_ref=f"pypi/{each.name}", purl=PackageURL("pypi", None, each.name, each.version),
        # One for each file that may be installed, by platform: none of them is the component's own.
        properties=[Property(name="tulle:sha256", value=value) for value in each.hashes],
    ) for each in entries}  # fmt: skip
    bom = _bom(subject, libraries.values())
    for name, library in {PROJECT: subject, **libraries}.items():
        bom.register_dependency(library, [libraries[each.name] for each in entries if name in each.wanted_by])
    return bom


def of_image(image: str, version: str, release: str, contents: Contents) -> Bom:
    """Of one image: Debian's packages (`release` is Debian's code name) and Python's, as its layers tell."""
    subject = Component(
        name=f"tulle/{image}", version=version, type=ComponentType.CONTAINER, bom_ref=f"image/{image}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=contents.digest.partition(":")[2])],
    )  # fmt: skip
    libraries = []
    for deb in contents.debian:
        where = {"arch": deb.architecture, "distro": release}
        libraries.append(Component(
            name=deb.name, version=deb.version, type=ComponentType.LIBRARY,
            bom_ref=f"deb/{deb.name}/{deb.architecture}",
            purl=PackageURL("deb", "debian", deb.name, deb.version, where),
            properties=[Property(name="tulle:source", value=deb.source)],
        ))  # fmt: skip
    for each in contents.python:
        libraries.append(Component(
            name=each.name, version=each.version, type=ComponentType.LIBRARY, bom_ref=f"pypi/{each.name}",
            purl=PackageURL("pypi", None, canonical(each.name), each.version),
            licenses=[LicenseExpression(each.license)] if each.license else [],
        ))  # fmt: skip
    bom = _bom(subject, libraries)
    bom.register_dependency(subject, libraries)
    return bom


def write(bom: Bom, target: Path, epoch: int) -> None:
    """Write a bill that the schema accepts; raises ReleaseError with the schema's words.

    Time and serial number come from the release, so that the same release gives the same file.
    """
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    document = json.loads(text)
    del document["serialNumber"]
    unique = uuid5(NAMESPACE_URL, json.dumps(document, sort_keys=True))
    document = {**document, "serialNumber": f"urn:uuid:{unique}"}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ReleaseError(f"{target.name} is not CycloneDX 1.6: {error}")
    target.write_text(text)


def _bom(subject: Component, libraries: Iterable[Component]) -> Bom:
    bom = Bom(components=libraries)
    bom.metadata.component = subject
    return bom
