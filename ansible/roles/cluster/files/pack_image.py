"""Pack one static program as a container image, with nothing but the standard library.

`pack_image.py PROGRAM NAME:TAG ARCHIVE` writes an archive that any container engine loads. The sandbox image is needed
before anything that builds images is there, and has one file in it.
"""

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Not root: the program needs no right at all (65535 is what Kubernetes' own sandbox image uses).
USER = "65535:65535"


def packed(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar archive with nothing in it that differs between two runs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def image(program: bytes, name: str) -> bytes:
    layer = packed({"pause": (program, 0o755)})
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": USER},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    return packed({"layer.tar": (layer, 0o644), config_name: (config, 0o644), "manifest.json": (manifest, 0o644)})


if __name__ == "__main__":
    source, name, destination = sys.argv[1:]
    Path(destination).write_bytes(image(Path(source).read_bytes(), name))
