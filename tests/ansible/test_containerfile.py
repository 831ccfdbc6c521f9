"""What is in the final images, and who runs them: by the Containerfile, and in the roots that were built of it."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.api import labels
from tests.ansible.kit import COLLECTION, ROOT
from tests.kit.tools import cache_folder

CONTAINERFILE: Final = COLLECTION / "roles/images/files/Containerfile"
STORAGE: Final = cache_folder() / "buildah/storage"
IMAGES: Final = ROOT / "build/images.json"
USERS: Final = {"proxy": labels.PROXY_UID, "control": 2103, "prometheus": 65534}
COMPILERS: Final = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|cc1|cpp|ld|as|ar|make|cython|uv|pip3?)(-[\d.]+)?")
"""Programs that make or install others; apt is part of every root of Debian's."""


def stages() -> dict[str, tuple[str, str]]:
    """Each stage's base and text."""
    text = CONTAINERFILE.read_text()
    found = re.split(r"^FROM (\S+) AS (\S+)\n", text, flags=re.MULTILINE)[1:]
    return {name: (base, body) for base, name, body in zip(found[::3], found[1::3], found[2::3], strict=True)}


def ancestry(image: str) -> str:
    """All that is done to a final image's own root, from the base on."""
    known = stages()
    done = ""
    while image in known:
        image, body = known[image]
        done = body + done
    assert image == "${BASE}"
    return done


@pytest.mark.parametrize("image", USERS)
def test_a_final_stage_installs_no_compiler_and_runs_as_its_user(image: str) -> None:
    done = ancestry(image)
    installed = {
        word
        for names in re.findall(r"install --yes --no-install-recommends((?:\s+\\?\s*[\w.+-]+)+)", done)
        for word in names.split()
    }
    assert not [name for name in installed if name.endswith("-dev") or COMPILERS.fullmatch(name)]
    assert not installed & {"binutils", "build-essential", "python3-pip", "python3-venv"}
    assert re.findall(r"^USER (\S+)$", done, re.MULTILINE) == [f"{USERS[image]}:{USERS[image]}"]
    # Nothing comes from a stage of the build but what was made there.
    taken = re.findall(r"^COPY --from=(\S+) (\S+)", done, re.MULTILINE)
    # dpkg does not know of what was unpacked by hand; its entry comes along for scanners.
    own = {"/extracted/usr/bin/prometheus", "/extracted/var/lib/dpkg/status.d/prometheus"}
    assert {path for _, path in taken} <= {"/packages", "/code", *own}


def test_there_are_no_other_images() -> None:
    """A stage that no other one takes is one that somebody may run."""
    known = stages()
    text = CONTAINERFILE.read_text()
    taken = {base for base, _ in known.values()} | set(re.findall(r"--from=(\S+)", text))
    assert set(known) - taken == set(USERS)


def built() -> dict[str, str]:
    """The names of this work tree's images that buildah's storage has."""
    images, index = IMAGES, STORAGE / "overlay-images/images.json"
    if not images.exists() or not index.exists():
        return {}
    there = {name for image in json.loads(index.read_text()) for name in image.get("names") or ()}
    return {image: name for image, name in json.loads(images.read_text()).items() if name in there}


def stored(name: str) -> tuple[dict[str, Any], list[Path]]:
    """An image's configuration, and the folders of its layers, read from where buildah keeps them."""
    images = json.loads((STORAGE / "overlay-images/images.json").read_text())
    (image,) = (one for one in images if name in (one.get("names") or ()))
    key = base64.b64encode(f"sha256:{image['id']}".encode()).decode()
    config = json.loads((STORAGE / "overlay-images" / image["id"] / f"={key}").read_text())["config"]
    parents = {one["id"]: one.get("parent") for one in json.loads((STORAGE / "overlay-layers/layers.json").read_text())}
    layers, layer = [], image["layer"]
    while layer:
        layers.append(STORAGE / "overlay" / layer / "diff")
        layer = parents[layer]
    return config, layers


@pytest.mark.skipif(
    len(built()) < len(USERS), reason="no image of this work tree is in buildah's storage; `make images` builds them"
)
@pytest.mark.parametrize("image", USERS)
def test_a_built_root_has_no_compiler_and_its_user(image: str) -> None:
    config, layers = stored(built()[image])
    assert config["User"] == f"{USERS[image]}:{USERS[image]}"
    programs = {
        name for layer in layers for _, _, names in os.walk(layer) for name in names if COMPILERS.fullmatch(name)
    }
    assert programs == set()
    if image != "prometheus":
        passwd = next(layer / "etc/passwd" for layer in layers if (layer / "etc/passwd").exists()).read_text()
        assert f":x:{USERS[image]}:{USERS[image]}::/nonexistent:" in passwd
