"""Old builds leave, the ones in use and the newest stay."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.kit import load

prune = load("roles/images/files/prune.py")

TABLE = """REF TYPE DIGEST SIZE PLATFORMS LABELS
localhost/tulle/proxy:1 type sha256:aa 1.0 MiB linux/amd64 -
localhost/tulle/proxy:2 type sha256:bb 1.0 MiB linux/amd64 -
localhost/tulle/proxy:3 type sha256:cc 1.0 MiB linux/amd64 -
sha256:config1 type sha256:aa 1.0 MiB linux/amd64 -
sha256:config2 type sha256:bb 1.0 MiB linux/amd64 -
"""


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], history: Path, keep: int, **given: Any
) -> dict[str, list[str]]:
    asked = {"wanted": [], "built": [], "loaded": TABLE, "used": "", **given}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    prune.main(history, keep)
    answer: dict[str, list[str]] = json.loads(capsys.readouterr().out)
    return answer


def test_the_oldest_of_a_kind_leaves_with_every_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    history = tmp_path / "history.json"
    history.write_text(json.dumps(["localhost/tulle/proxy:1", "localhost/tulle/control:1", "localhost/tulle/proxy:2"]))
    answer = run(monkeypatch, capsys, history, 2, wanted=["localhost/tulle/proxy:3"])
    assert answer["loaded"] == ["localhost/tulle/proxy:1", "sha256:config1"]
    assert json.loads(history.read_text()) == [
        "localhost/tulle/control:1",
        "localhost/tulle/proxy:2",
        "localhost/tulle/proxy:3",
    ]


def test_what_a_container_uses_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    history = tmp_path / "history.json"
    history.write_text(json.dumps(["localhost/tulle/proxy:1", "localhost/tulle/proxy:2"]))
    used = "CONTAINER IMAGE RUNTIME\n0a1b localhost/tulle/proxy:1 io.containerd.runc.v2\n"
    assert run(monkeypatch, capsys, history, 1, wanted=["localhost/tulle/proxy:3"], used=used)["loaded"] == [
        "localhost/tulle/proxy:2",
        "sha256:config2",
    ]


def test_a_build_that_is_wanted_again_is_new_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    history = tmp_path / "history.json"
    history.write_text(json.dumps(["localhost/tulle/proxy:1", "localhost/tulle/proxy:2"]))
    answer = run(monkeypatch, capsys, history, 1, wanted=["localhost/tulle/proxy:1"])
    assert answer["loaded"] == ["localhost/tulle/proxy:2", "sha256:config2"]


def test_layers_of_no_build_leave_after_two_weeks() -> None:
    day = 86400.0
    built = [
        {"id": "old", "names": None, "created": 0},
        {"id": "young", "names": None, "created": 10 * day},
        {"id": "named", "names": ["localhost/tulle/proxy:1"], "created": 0},
    ]
    assert prune.stale_layers(built, 20 * day) == ["old"]
