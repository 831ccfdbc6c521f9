"""The sandbox image: one file, the same bytes each time, in the form that engines load."""

import hashlib
import io
import json
import tarfile

from tests.ansible.kit import load

pack_image = load("roles/cluster/files/pack_image.py")


def contents(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        files = {name: opened.extractfile(name) for name in opened.getnames()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_it_is_what_an_engine_loads() -> None:
    files = contents(pack_image.image(b"program", "localhost/tulle/pause:1"))
    (entry,) = json.loads(files["manifest.json"])
    config = json.loads(files[entry["Config"]])
    assert entry["RepoTags"] == ["localhost/tulle/pause:1"]
    assert config["config"] == {"Entrypoint": ["/pause"], "User": "65535:65535"}
    layer = files[entry["Layers"][0]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert contents(layer) == {"pause": b"program"}


def test_it_is_the_same_each_time() -> None:
    assert pack_image.image(b"program", "a:1") == pack_image.image(b"program", "a:1")
