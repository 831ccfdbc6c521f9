"""A stack whose nodes are not known to be fit does not come up, however it is deployed, and says which and why."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.cli.deploy_commands import preview, up
from components.cli.render import render
from components.deploy.errors import DeployError
from components.nodes.judging import NodesError, judge
from components.requirements import node_requirements
from tests.iac.kit import ROOT, arguments, config, fit_nodes
from tests.iac.rest import serving

NOW = datetime.datetime(2026, 3, 4, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(hours=24)
SLOW = "the clock is 90 s behind the API server's. Why it matters: certificates. What to do: chronyc makestep"


def report(**changes: Any) -> str:
    nodes = {"node-1": {"ok": True}, "node-2": {"ok": True}}
    return json.dumps(
        {"schema": 1, "time": "2026-03-04T11:00:00Z", "requirements": "sha256:1", "nodes": nodes, **changes}
    )


def judged(text: str) -> list[str]:
    return judge(text, "sha256:1", "prod", "nodes.json", NOW, DAY)


def test_fit_nodes_are_named() -> None:
    assert judged(report()) == ["node-1", "node-2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": "2026-03-03T11:59:59Z"}, "nodes.json is 24 h old, and nodes.maxAge lets 24 h pass"),
        ({"time": "2026-03-04T12:06:00Z"}, r"from the future \(2026-03-04 12:06 UTC\)"),
        ({"time": "yesterday"}, "no report on nodes that this version reads"),
        (
            {"requirements": "sha256:2"},
            r"judged by other requirements than stack prod has now \(sha256:2, not sha256:1\)",
        ),
        ({"requirements": ""}, r"\(none, not sha256:1\)"),
        ({"schema": 2}, "no report on nodes"),
        ({"nodes": {}}, "no report on nodes"),
        ({"nodes": ["node-1"]}, "no report on nodes"),
        (
            {"nodes": {"node-1": {"ok": True}, "node-2": {"ok": False, "message": SLOW}}},
            "1 of 2 .*\n  node-2: the clock",
        ),
        ({"nodes": {"node-1": {"ok": "yes"}}}, "1 of 1 nodes are not fit .*\n  node-1: not fit"),
        ({"nodes": {f"node-{n}": {"ok": False, "message": "m"} for n in range(9)}}, "node-4: m\n  and 4 more"),
    ],
)
def test_others_are_refused_with_the_way_out(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NodesError, match=words) as caught:
        judged(report(**changes))
    assert "ansible-playbook -i INVENTORY ansible/playbooks/verify.yml -e mesh_stack=prod" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"schema": 1}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(NodesError, match="no report on nodes"):
        judged(text)


def test_the_hash_follows_what_is_asked_of_a_node_and_not_what_a_pod_costs() -> None:
    def hashed(**overrides: str) -> str:
        return str(node_requirements(arguments("prod", **overrides))["hash"])

    assert hashed() == hashed(proxy_cpuRequest="20m", prometheus_enabled="false")
    assert hashed() != hashed(proxy_ipv6="true")


def test_production_asks_for_a_report() -> None:
    assert json.loads(config("prod")["tulle:nodes.required"]) is True
    message = r"key nodes\.report is '', but must be the report of the playbook `verify`, as long as"
    with pytest.raises(DeployError, match=message):
        arguments("prod", nodes_report="")
    assert arguments("local")["nodes"]["report"] == ""


@pytest.mark.parametrize("name", ["up", "preview", "render"])
def test_a_node_that_is_not_fit_keeps_production_down(name: str, tmp_path: Path) -> None:
    path = tmp_path / "nodes-report.json"
    found = json.loads(Path(fit_nodes(tmp_path)).read_text())
    found["nodes"]["node-2"] = {"ok": False, "message": SLOW}
    path.write_text(json.dumps(found))
    with serving(tmp_path) as (api, target):
        options = ["--stack", "prod", "--cwd", str(ROOT), "-c", f"nodes.report={path}"]
        where = ["--context", target.context, "--kubeconfig", target.kubeconfig, *(["--yes"] if name == "up" else [])]
        command = {"up": up, "preview": preview, "render": render}[name]
        result = CliRunner().invoke(command, [*options, *(where if name != "render" else [])])
        assert result.exit_code != 0
        text = f"{result.output}{result.exception}"
        assert "1 of 2 nodes are not fit for the mesh, so nothing is applied" in text
        assert f"node-2: {SLOW}" in text
        assert api.objects == {}
        assert not any(verb != "GET" for verb, _ in api.writes)


def test_the_program_itself_refuses_so_pulumi_up_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pulumi

    from components.mesh import read_stack

    given = {**config("prod", nodes_report="not/there.json"), "kubernetes:context": "some"}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(given))
    monkeypatch.setattr("pulumi.get_stack", lambda: "prod")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pulumi.RunError, match=r"not/there.json cannot be read \(No such file.*\): nobody has verified"):
        read_stack()
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({**given, "tulle:nodes.report": fit_nodes(tmp_path)}))
    assert read_stack()["replicas"] == 3
