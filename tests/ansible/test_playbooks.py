"""The playbooks as a user runs them: what they refuse, and that each reads as it should."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ansible.kit import BIN, COLLECTION, ROOT, environment, message, playbook

PLAYBOOKS = sorted(path.name for path in (COLLECTION / "playbooks").glob("*.yml"))
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())


def test_every_playbook_reads() -> None:
    first, *others = PLAYBOOKS
    done = playbook(first, *(str(COLLECTION / "playbooks" / name) for name in others), "--syntax-check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("cluster_port_api", "many", "cannot be converted to an int"),
        ("node_load_modules", "perhaps", "not a valid boolean"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_done(name: str, value: str, reason: str, tmp_path: Path) -> None:
    done = playbook("site.yml", "-e", json.dumps({name: value}), TULLE_STATE=str(tmp_path), TULLE_CACHE=str(tmp_path))
    assert done.returncode != 0
    assert name in message(done)
    assert reason in message(done)
    assert list(tmp_path.iterdir()) == []


def test_verifying_nothing_says_how_to_start(tmp_path: Path) -> None:
    done = playbook("verify.yml", TULLE_STATE=str(tmp_path / "state"))
    assert done.returncode != 0
    assert f"there is no local cluster below {tmp_path}/state: start one with 'make up'" in message(done)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented(role: str) -> None:
    defaults = yaml.safe_load((COLLECTION / "roles" / role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((COLLECTION / "roles" / role / "meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    assert set(defaults) == set(options)
    assert not [name for name in options if not name.startswith(f"{role}_")]
    for name, option in options.items():
        if "default" in option:
            assert option["default"] == defaults[name], name


def test_the_collection_can_be_built(tmp_path: Path) -> None:
    command = [str(BIN / "ansible-galaxy"), "collection", "build", str(COLLECTION), "--output-path", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tulle-mesh-0.1.0.tar.gz"]
