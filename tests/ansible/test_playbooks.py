"""The playbooks as a user runs them: what they refuse, and that each reads as it should."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ansible.kit import BIN, COLLECTION, ROOT, environment, may_sandbox, message, playbook

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
        ("node_iptables_mixed", "shrug", "must be one of: refuse, accept"),
        ("node_sysctl_floors", ["net.ipv4.ip_forward"], "cannot be converted to a dict"),
        ("node_free_ports", ["http"], "cannot be converted to an int"),
        ("node_pod_networks", {"a": 1}, "cannot be converted to a list"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_done(
    name: str, value: object, reason: str, tmp_path: Path
) -> None:
    done = playbook("site.yml", "-e", json.dumps({name: value}), TULLE_STATE=str(tmp_path), TULLE_CACHE=str(tmp_path))
    assert done.returncode != 0
    assert name in message(done)
    assert reason in message(done)
    assert list(tmp_path.iterdir()) == []


def test_verifying_nothing_says_how_to_start(tmp_path: Path) -> None:
    done = playbook("verify.yml", TULLE_STATE=str(tmp_path / "state"))
    assert done.returncode != 0
    assert f"there is no local cluster below {tmp_path}/state: start one with 'make up'" in message(done)


LOOK = """---
- name: See what a cluster would be made with
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Take up what is remembered
      ansible.builtin.include_role:
        name: tulle.mesh.cluster
        tasks_from: remembered.yml
        public: true

    - name: Show it
      ansible.builtin.debug:
        msg: "chosen {{ cluster_choices | to_json }}, serving {{ cluster_api_url }}"
      vars:
        role_path: "{{ look_role }}"
"""


class TestRemembered:
    """What is set for the cluster once holds for every run after, from whatever clone."""

    @pytest.fixture
    def look(self, tmp_path: Path) -> Path:
        path = tmp_path / "look.yml"
        path.write_text(LOOK)
        (tmp_path / "state/config").mkdir(parents=True)
        return path

    @pytest.mark.parametrize(
        ("before", "given", "told"),
        [
            ({}, "cluster_port_api=7443", 'chosen {\\"cluster_port_api\\": 7443}, serving https://10.86.0.1:7443'),
            ({"cluster_port_api": 7443}, "cluster_port_api=6443", "chosen {}, serving https://10.86.0.1:6443"),
            (
                {"cluster_port_api": 7443},
                "cluster_pod_subnet=10.1.2.0/24",
                'chosen {\\"cluster_pod_subnet\\": \\"10.1.2.0/24\\", \\"cluster_port_api\\": 7443}, '
                "serving https://10.1.2.1:7443",
            ),
        ],
    )
    def test_a_choice_stays_until_it_is_made_anew(
        self, look: Path, before: dict[str, object], given: str, told: str
    ) -> None:
        state = look.parent / "state"
        if before:
            (state / "remembered.json").write_text(json.dumps(before))
        role = f"look_role={COLLECTION / 'roles/cluster'}"
        done = playbook(look, "-e", role, *(("-e", given) if given else ()), TULLE_STATE=str(state))
        assert done.returncode == 0, message(done)
        assert told in message(done)

    def test_a_cluster_that_lives_keeps_its_subnets(self, look: Path) -> None:
        state = look.parent / "state"
        (state / "etcd/member").mkdir(parents=True)
        made = {"pod_subnet": "10.86.0.0/24", "service_subnet": "10.87.0.0/16"}
        (state / "config/cluster.json").write_text(json.dumps(made))
        done = playbook(look, "-e", "cluster_pod_subnet=10.1.2.0/24", TULLE_STATE=str(state))
        assert done.returncode != 0
        assert "made with the subnets 10.86.0.0/24 (pods) and 10.87.0.0/16" in message(done)
        assert "'make down' first" in message(done)
        role = f"look_role={COLLECTION / 'roles/cluster'}"
        assert playbook(look, "-e", role, "-e", "cluster_port_api=7443", TULLE_STATE=str(state)).returncode == 0

    def test_a_state_folder_too_deep_for_a_socket_is_refused(self, look: Path) -> None:
        look.write_text(LOOK.replace("remembered.yml", "main.yml"))
        deep = Path("/tmp") / ("a" * (108 - len("/tmp//run/containerd/containerd.sock")))
        done = playbook(look, TULLE_STATE=str(deep))
        assert done.returncode != 0
        assert not deep.exists()
        assert f"cluster_state_dir is {deep}, 1 characters too long" in message(done)
        assert "set TULLE_STATE to a shorter path" in message(done)

    @pytest.mark.parametrize("given", ["cluster_prot_api=7443", "cluster_port_api"])
    def test_a_name_that_is_none_is_refused(self, given: str) -> None:
        command = ["make", "--no-print-directory", "--assume-old=setup", "cluster", f"CLUSTER={given}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert f"'{given}' in CLUSTER is no NAME=VALUE" in done.stderr
        assert "PLAY" not in done.stdout


@pytest.mark.skipif(bool(may_sandbox()), reason=may_sandbox() or "runs")
@pytest.mark.parametrize("name", ["site.yml", "images.yml"])
def test_without_root_it_is_said_and_nothing_is_done(name: str, tmp_path: Path) -> None:
    # Nobody, but for reading: the clone and its interpreter may stand in a folder of root's.
    reading = "+dac_override,+dac_read_search"
    rights = (f"--inh-caps={reading}", f"--ambient-caps={reading}")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rights)
    done = playbook(name, before=nobody, TULLE_STATE=str(tmp_path / "state"), TULLE_CACHE=str(tmp_path / "cache"))
    assert done.returncode != 0
    assert "run the same command as root ('sudo -E' keeps your folders)" in message(done)
    assert "changed=0" in message(done)
    assert list(tmp_path.iterdir()) == []


WATCH = """---
- name: Watch a command that fails
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Watch it
      tulle.mesh.watched:
        argv: [sh, -c, "for line in $(seq 1 40); do echo line $line; done; echo the cause >&2; exit 3"]
        chdir: /
        log: "{{ log }}"
        what: building a thing
"""


def test_a_watched_command_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "watch.yml").write_text(WATCH)
    log = tmp_path / "thing.log"
    done = playbook(tmp_path / "watch.yml", "-e", f"log={log}", HOME=str(tmp_path))
    assert done.returncode != 0
    assert "building a thing: line 27" in message(done).replace("\\n", " ")
    assert f"the cause (all of it: {log})" in message(done).replace("\\n", " ")
    assert len(log.read_text().splitlines()) == 41
    # What Ansible wants for itself is in the cache, and not in the home folder.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".ansible")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented(role: str) -> None:
    defaults = yaml.safe_load((COLLECTION / "roles" / role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((COLLECTION / "roles" / role / "meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    assert set(defaults) == {name for name, option in options.items() if not option.get("required")}
    assert not [name for name in options if not name.startswith(f"{role}_")]
    for name, option in options.items():
        if "default" in option:
            assert option["default"] == defaults[name], name


def test_the_collection_can_be_built(tmp_path: Path) -> None:
    command = [str(BIN / "ansible-galaxy"), "collection", "build", str(COLLECTION), "--output-path", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tulle-mesh-0.1.0.tar.gz"]
