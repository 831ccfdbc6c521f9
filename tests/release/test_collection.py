"""The Ansible collection, installed from its file into an empty folder."""

import json
from pathlib import Path

from tests.ansible.kit import BIN, message, playbook
from tests.release.conftest import Release, run

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: tulle.mesh.{role}
"""


def installed(release: Release, folder: Path) -> Path:
    """Where the collection is after `ansible-galaxy collection install`."""
    archive = release.file("tulle-mesh-*.tar.gz")
    command = ("collection", "install", "--offline", "--collections-path", str(folder), str(archive))
    run(str(BIN / "ansible-galaxy"), *command, more={"ANSIBLE_HOME": str(folder / "home")})
    return folder / "ansible_collections/tulle/mesh"


def test_the_roles_check_what_they_are_given(release: Release, tmp_path: Path) -> None:
    found = installed(release, tmp_path)
    assert json.loads((found / "MANIFEST.json").read_text())["collection_info"]["version"] == release.version
    # `make`'s settings lead to the clone: an empty file instead of them, and the installed collection alone.
    (tmp_path / "ansible.cfg").write_text("")
    elsewhere = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
    for role, given, told in (
        ("images", {"images_engine": "kaniko"}, "value of images_engine must be one of: buildah, docker, podman"),
        ("cluster", {"cluster_port_api": "high"}, "argument 'cluster_port_api' is of type"),
        ("node", {"node_clock_skew_seconds": "much"}, "argument 'node_clock_skew_seconds' is of type"),
    ):
        play = tmp_path / f"{role}.yml"
        play.write_text(PLAY.format(role=role))
        done = playbook(play, "-e", json.dumps(given), before=(), **elsewhere)
        assert done.returncode != 0, role
        assert told in message(done), message(done)[-1500:]
        assert f'"path": "{found}/roles/{role}"' in done.stdout, "not the installed collection's role"


def test_nothing_of_the_work_tree_is_in_it(release: Release, tmp_path: Path) -> None:
    found = installed(release, tmp_path)
    names = {str(path.relative_to(found)) for path in found.rglob("*")}
    assert "playbooks/site.yml" in names
    assert not {name for name in names if name.startswith("playbooks/collections") or name.endswith((".pyc", ".cfg"))}
