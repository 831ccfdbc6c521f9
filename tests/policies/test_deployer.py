"""The embedded deployer applies nothing that breaks a mandatory policy, and says what, where and the way out."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli.deploy_commands import preview, up
from components.cli.render import render
from components.deploy import guarding, project
from components.deploy.deployment import Deployment
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from tests.iac.kit import ROOT, fit_nodes
from tests.iac.rest import RestApi, serving

DIGESTS = json.dumps(dict.fromkeys(("proxy", "control", "prometheus"), "sha256:" + "0" * 64))


def deployment(stack: str, target: Target, **overrides: str) -> Deployment:
    found = project.load(ROOT)
    config = found.config(stack, {key.replace("_", "."): value for key, value in overrides.items()})
    return Deployment(found, stack, config, target)


@pytest.mark.parametrize("stack", ["local", "dev", "prod"])
def test_each_stack_of_the_project_keeps_its_policies(stack: str, tmp_path: Path) -> None:
    with serving(tmp_path) as (_, target):
        made = deployment(stack, target, images_digests=DIGESTS, nodes_report=fit_nodes(tmp_path, stack))
        try:
            violations = made.plan().violations
        finally:
            made.close()
    assert not [str(each) for each in violations if each.level == "mandatory"]
    assert {each.level for each in violations} <= {"advisory"}


def test_prod_without_digests_is_refused_before_anything_is_applied(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        made = deployment("prod", target, nodes_report=fit_nodes(tmp_path))
        try:
            with pytest.raises(DeployError, match=r"breaks \d+ of its policies.*\n.*proxy-image-by-digest.*digests"):
                made.up()
        finally:
            made.close()
        assert api.writes == []
        assert api.objects == {}


def invoke(api: RestApi, target: Target, command: str, *more: str) -> tuple[int, str]:
    options = ["--stack", "prod", "--cwd", str(ROOT), "--context", target.context, "--kubeconfig", target.kubeconfig]
    result = CliRunner().invoke({"up": up, "preview": preview}[command], [*options, *more])
    assert api.objects == {}
    return result.exit_code, result.output


def test_preview_shows_the_plan_and_the_violations_and_fails(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        nodes = ("-c", f"nodes.report={fit_nodes(tmp_path)}")
        code, text = invoke(api, target, "preview", *nodes)
        assert code == 1
        assert "+ Deployment tulle/identity" in text
        assert "policy (mandatory) Deployment tulle/identity: proxy-image-by-digest" in text
        code, text = invoke(api, target, "up", "--yes", *nodes)
        assert code == 1
        assert "nothing is applied" in text
        _, text = invoke(api, target, "preview", "-o", "json", *nodes)
        (first, *_) = json.loads(text)["policies"]
        assert set(first) == {"rule", "resource", "value", "remedy", "level"}


def test_render_is_guarded_too(tmp_path: Path) -> None:
    nodes = ("-c", f"nodes.report={fit_nodes(tmp_path)}")
    result = CliRunner().invoke(render, ["--stack", "prod", *nodes])
    assert result.exit_code == 1
    assert "proxy-image-by-digest" in str(result.exception)
    result = CliRunner().invoke(render, ["--stack", "prod", "-c", f"images.digests={DIGESTS}", *nodes])
    assert result.exit_code == 0, result.output


def test_a_key_under_a_public_config_key_is_found_and_not_shown(tmp_path: Path) -> None:
    from tests.policies.examples import anchor

    pair = anchor(3000)
    with serving(tmp_path) as (api, target):
        made = deployment("local", target, trust_bundle=pair.certificate + pair.key)
        try:
            with pytest.raises(DeployError) as caught:
                made.up()
        finally:
            made.close()
        assert api.objects == {}
    text = str(caught.value)
    assert "Config local: no-private-key: a private key stands at tulle:trust.bundle" in text
    assert pair.key.splitlines()[1] not in text


def test_a_stack_without_a_file_of_its_own_has_the_common_levels(tmp_path: Path) -> None:
    assert guarding.levels(ROOT, "staging") == json.loads((ROOT / "policies" / "policy-config.json").read_text())
    assert guarding.levels(ROOT, "prod") == {"all": "mandatory"}
    assert not guarding.guarded(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "policy-config.json").write_text("[")
    with pytest.raises(DeployError, match=r"policy-config.json cannot be read"):
        guarding.levels(tmp_path, "x")
