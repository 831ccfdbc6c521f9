"""The `tulle` command group: quick help, lazy imports, one clear error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli.main import COMMANDS, cli
from components.cli.target import find_target
from components.deploy.errors import ClusterError

KUBECONFIG = "current-context: here\ncontexts: []\nclusters: []\nusers: []\n"


def test_help_imports_nothing_heavy() -> None:
    """The 200 ms of `tulle --help` are kept by what it imports; a clock would measure the machine."""
    code = (
        "import sys\nfrom components.cli.main import main\nsys.argv = ['tulle', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'rich', 'lightkube', 'httpx2', 'pulumi', 'grpc', 'cryptography', 'yaml', 'asyncio', 'msgspec'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name, (_, sentence) in COMMANDS.items():
        assert name in done.stdout
        assert sentence in done.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_is_there_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(cli, ["tap"]).exit_code == 2


def test_without_a_cluster_every_command_says_how_to_get_one(tmp_path: Path) -> None:
    for command in (["check"], ["stat", "deploy"], ["identity"], ["version"]):
        result = CliRunner(env={"TULLE_STATE": str(tmp_path), "KUBECONFIG": "/elsewhere"}).invoke(cli, command)
        assert result.exit_code == 1
        assert "there is no local cluster" in result.output
        assert "make up" in result.output


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: gone\n"
        "contexts: [{name: gone, context: {cluster: gone, user: me}}]\n"
        "clusters: [{name: gone, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: me, user: {}}]\n"
    )
    result = CliRunner().invoke(cli, ["stat", "deploy", "--kubeconfig", str(config)])
    assert result.exit_code == 1
    assert "context 'gone'" in result.output
    assert "does not answer" in result.output
    result = CliRunner().invoke(cli, ["check", "-o", "json", "--kubeconfig", str(config)])
    assert result.exit_code == 1
    assert '"name": "kubernetes-api"' in result.output


def test_the_local_cluster_is_meant_whatever_kubeconfig_says(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    other = tmp_path / "other"
    other.write_text(KUBECONFIG)
    target = find_target(None, None, {"TULLE_STATE": str(tmp_path), "KUBECONFIG": str(other)})
    assert (target.kubeconfig, target.context) == (str(tmp_path / "kubeconfig"), "tulle-local")


def test_state_folder_follows_xdg(tmp_path: Path) -> None:
    (tmp_path / "tulle").mkdir()
    (tmp_path / "tulle" / "kubeconfig").write_text(KUBECONFIG)
    assert find_target(None, None, {"XDG_STATE_HOME": str(tmp_path)}).kubeconfig == f"{tmp_path}/tulle/kubeconfig"


def test_a_named_kubeconfig_gives_its_current_context(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(KUBECONFIG)
    assert find_target(str(config), None, {}).context == "here"
    assert find_target(str(config), "there", {}).context == "there"
    assert find_target(None, "there", {"KUBECONFIG": str(config)}).kubeconfig == str(config)


@pytest.mark.parametrize(
    ("content", "says"), [("", "no current-context"), ("[1]", "no current-context"), ("{", "cannot be read")]
)
def test_a_broken_kubeconfig_is_named(tmp_path: Path, content: str, says: str) -> None:
    config = tmp_path / "config"
    config.write_text(content)
    with pytest.raises(ClusterError, match=says) as caught:
        find_target(str(config), None, os.environ)
    assert str(config) in str(caught.value)


def test_a_missing_kubeconfig_is_named() -> None:
    with pytest.raises(ClusterError, match="/nowhere/config"):
        find_target("/nowhere/config", None, {})
    with pytest.raises(ClusterError, match="/nowhere/config"):
        find_target(None, "c", {"KUBECONFIG": "/nowhere/config"})
