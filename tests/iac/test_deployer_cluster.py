"""The embedded deployer on the real local cluster, with a small project in namespaces of its own."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.cli.deploy_commands import down, outputs, preview, up
from components.deploy.cluster import Cluster
from components.deploy.errors import ClusterError, DeployError, NotReadyError, OwnershipError
from components.deploy.ledger import Ledger
from components.deploy.refs import Ref
from components.deploy.steps import Action
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.tiny import Tiny, target, unique
from tests.kit.waiting import slowness

pytestmark = pytest.mark.e2e
PATCH = """
import pulumi
import pulumi_kubernetes as k8s

config, cluster = pulumi.Config(), pulumi.Config("kubernetes")
where = {"kubeconfig": cluster.require("kubeconfig"), "context": cluster.require("context")}
options = pulumi.ResourceOptions(provider=k8s.Provider("tiny", enable_server_side_apply=True, **where))
metadata = {"name": "theirs", "namespace": config.require("namespace")}
k8s.core.v1.ConfigMapPatch("patch", metadata=metadata, data={"b": "ours"}, opts=options)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not Path(target().kubeconfig).is_file():
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no local cluster ({target().kubeconfig} does not exist)")
        pytest.skip("no local cluster; `make up` starts it")
    found = Cluster(target())
    yield found
    found.close()


@pytest.fixture
def tiny(tmp_path: Path, cluster: Cluster) -> Iterator[Tiny]:
    made = Tiny.create(tmp_path / "project", unique())
    yield made
    found = cluster.get(made.inventory)
    if found is not None and found["data"]["owner"] != "embedded":
        cluster.delete(made.inventory)
    made.up(protect="false", adopt=True) if found else None
    made.down()


def labels_with(tally_steps: object, action: Action) -> list[str]:
    return sorted(step.label for step in tally_steps if step.action is action)  # type: ignore[attr-defined]


def test_the_life_of_a_stack(tiny: Tiny, cluster: Cluster) -> None:
    # Preview on an empty cluster: everything to create, nothing created.
    plan = tiny.plan()
    assert plan.count(Action.CREATE) == len(plan.steps) == 6
    assert any("not validated" in step.note for step in plan.steps)
    assert any("known after apply" in step.note for step in plan.steps)
    assert tiny.live(cluster) == {}
    # Up: all of it.
    result = tiny.up()
    assert result.tally.count(Action.CREATE) == 6
    assert result.outputs["color"] == "red"
    assert result.outputs["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert result.outputs["password"] == "[secret]"
    assert len(tiny.live(cluster)) == 7
    # Up again: nothing at all changes, the inventory included.
    before = tiny.versions(cluster)
    assert tiny.up().tally.quiet
    assert tiny.versions(cluster) == before
    assert tiny.plan().quiet
    # One changed setting changes its object, and the inventory with the outputs.
    result = tiny.up(color="blue")
    assert labels_with(result.tally.steps, Action.UPDATE) == [f"ConfigMap {tiny.name}/settings"]
    after = tiny.versions(cluster)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"ConfigMap {tiny.name}/settings", str(tiny.inventory)}
    # A removed component is pruned, and only that.
    result = tiny.up(color="blue", extra="false")
    assert labels_with(result.tally.steps, Action.DELETE) == [f"ConfigMap {tiny.name}/extra"]
    assert set(tiny.live(cluster)) == set(after) - {f"ConfigMap {tiny.name}/extra"}
    # Down: nothing is left.
    assert tiny.down().tally.count(Action.DELETE) == 5
    assert tiny.live(cluster) == {}


def test_no_key_is_in_inventory_outputs_or_display(tiny: Tiny, cluster: Cluster) -> None:
    runner = CliRunner()
    common = [
        "--stack",
        "t",
        "--cwd",
        str(tiny.root),
        "--context",
        target().context,
        "--kubeconfig",
        target().kubeconfig,
    ]
    common += ["-c", f"namespace={tiny.name}"]
    printed = ""
    for command, options in ((preview, []), (up, ["--yes"]), (outputs, ["-o", "json"])):
        result = runner.invoke(command, [*common, *options])
        assert result.exit_code == 0, result.output
        printed += result.output
    result = runner.invoke(up, [*common, "--yes", "-c", "password=another-long-password", "-c", "color=green"])
    assert "Secret" in result.output
    assert "green" in result.output
    printed += result.output
    stored = json.dumps(cluster.get(tiny.inventory))
    found = []
    for name in (labels.ANCHOR_SECRET, labels.ISSUER_SECRET):
        secret = cluster.get(Ref("v1", "Secret", tiny.name, name))
        assert secret is not None
        found.append(base64.b64decode(secret["data"]["tls.key"]).decode())
    assert all("PRIVATE KEY" in key for key in found)
    for text in (printed, stored):
        assert "PRIVATE KEY" not in text
        for key in found:
            assert key.splitlines()[1] not in text
        assert "correct-horse-battery" not in text
        assert "another-long-password" not in text
        assert base64.b64encode(b"correct-horse-battery").decode() not in text
    result = runner.invoke(down, [*common, "--yes", "-o", "json"])
    assert json.loads(result.stdout)["summary"]["delete"] == 6


def test_a_private_key_made_once_stays(tiny: Tiny, cluster: Cluster) -> None:
    tiny.up()
    refs = [Ref("v1", "Secret", tiny.name, name) for name in (labels.ANCHOR_SECRET, labels.ISSUER_SECRET)]
    before = [(cluster.get(ref) or {})["data"] for ref in refs]
    # Even with the inventory lost, an anchor that is there is kept.
    cluster.delete(tiny.inventory)
    tiny.up(color="blue")
    assert [(cluster.get(ref) or {})["data"] for ref in refs] == before
    # An issuer that is gone is made anew under the same anchor.
    cluster.delete(refs[1])
    tiny.up(color="blue")
    issuer = (cluster.get(refs[1]) or {})["data"]
    assert issuer["tls.key"] != before[1]["tls.key"]
    assert issuer["ca.crt"] == before[0]["tls.crt"]


def test_drift_is_shown_and_put_right(tiny: Tiny, cluster: Cluster) -> None:
    tiny.up()
    ref = Ref("v1", "ConfigMap", tiny.name, "settings")
    live = cluster.get(ref)
    assert live is not None
    cluster.replace({**live, "data": {**live["data"], "color": "pink", "added": "by hand"}})
    plan = tiny.plan()
    (step,) = [step for step in plan.steps if step.action is Action.UPDATE]
    assert [str(change) for change in step.changes] == ["~ data.color: pink -> red"]
    tiny.up()
    live = cluster.get(ref)
    assert live is not None
    assert live["data"]["color"] == "red"
    assert live["data"]["added"] == "by hand", "a field that is not ours is left alone"


def test_what_others_made_is_not_taken_unasked(tiny: Tiny, cluster: Cluster) -> None:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tiny.name}})
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extra", "namespace": tiny.name},
            "data": {"x": "y"},
        }
    )
    with pytest.raises(OwnershipError, match=rf"Namespace {tiny.name} exists already.*\n.*--adopt"):
        tiny.plan()
    tiny.up(adopt=True)
    adopted = cluster.get(Ref("v1", "ConfigMap", tiny.name, "extra"))
    assert adopted is not None
    assert adopted["data"] == {"a": "b", "x": "y"}


def test_a_patch_adds_fields_to_what_others_own_and_takes_them_back(tiny: Tiny, cluster: Cluster) -> None:
    ref = Ref("v1", "ConfigMap", tiny.name, "theirs")
    metadata = {"name": "theirs", "namespace": tiny.name}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tiny.name}})
    (tiny.root / "__main__.py").write_text(PATCH)
    with pytest.raises(DeployError, match=r"ConfigMap .*/theirs does not exist, so it cannot be patched"):
        tiny.up()
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "theirs"}})
    tiny.up()
    assert (cluster.get(ref) or {})["data"] == {"a": "theirs", "b": "ours"}
    assert tiny.up().tally.quiet
    tiny.down()
    assert (cluster.get(ref) or {})["data"] == {"a": "theirs"}
    cluster.delete(Ref("v1", "Namespace", "", tiny.name))


def test_protected_things_and_what_they_stand_on_are_kept(tiny: Tiny, cluster: Cluster) -> None:
    tiny.up(protect="true")
    result = tiny.down()
    assert labels_with(result.tally.steps, Action.KEEP) == [f"Namespace {tiny.name}", "TrustAnchor/anchor"]
    left = tiny.live(cluster)
    assert set(left) == {
        f"Secret {tiny.name}/{labels.ANCHOR_SECRET}",
        f"Namespace {tiny.name}",
        str(tiny.inventory),
    }
    # The next up finds the anchor again.
    certificate = left[f"Secret {tiny.name}/{labels.ANCHOR_SECRET}"]["data"]["tls.crt"]
    outputs_now = tiny.up(protect="false").outputs
    assert base64.b64decode(certificate).decode() == outputs_now["certificate"]


def test_an_image_that_cannot_be_pulled_is_reported_promptly(tiny: Tiny) -> None:
    begun = time.monotonic()
    with pytest.raises(NotReadyError) as caught:
        tiny.up(image="localhost/tulle/does-not-exist:0")
    assert time.monotonic() - begun < 60 * slowness()
    text = str(caught.value)
    assert f"Deployment {tiny.name}/app" in text
    assert "does-not-exist" in text
    assert "Image" in text
    assert "make push REGISTRY" in text


def test_ctrl_c_ends_the_wait_and_keeps_what_is_recorded(tiny: Tiny, cluster: Cluster) -> None:
    command = [sys.executable, "-m", "components.cli.main", "up", "--stack", "t", "--cwd", str(tiny.root), "--yes"]
    command += ["--context", target().context, "--kubeconfig", target().kubeconfig]
    command += ["-c", f"namespace={tiny.name}", "-c", "image=localhost/tulle/does-not-exist:0"]
    # A pod that is never scheduled is waited for; an image that is not there soon ends the wait.
    command += ["-c", "node=nowhere"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wanted = Ref("apps/v1", "Deployment", tiny.name, "app")
    deadline = time.monotonic() + 60
    while (cluster.get(wanted) is None or len(tiny.live(cluster)) < 7) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert "stopped; what is applied is recorded" in errors
    assert "Traceback" not in errors
    entries = (cluster.get(tiny.inventory) or {})["data"]["entries"]
    assert '"name": "app"' in entries
    assert len(tiny.live(cluster)) == 7


def test_the_other_deployer_is_refused(tiny: Tiny, cluster: Cluster) -> None:
    data = {"owner": "pulumi", "project": tiny.name, "stack": "t"}
    metadata = {"name": tiny.inventory.name, "namespace": tiny.inventory.namespace}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    with pytest.raises(OwnershipError, match=r"belongs to the deployer 'pulumi'.*\n.*tulle handover --to embedded"):
        tiny.plan()
    cluster.delete(tiny.inventory)


def test_two_deployments_at_once_do_not_both_go_on(tiny: Tiny, cluster: Cluster) -> None:
    tiny.up()
    one, other = (Ledger(cluster, tiny.name, "t") for _ in range(2))
    one.write_outputs({"color": "one"})
    with pytest.raises(DeployError, match="another one is at work"):
        other.write_outputs({"color": "other"})


def test_a_context_that_does_not_exist_or_answer_is_named(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"Context 'nowhere' not found\n.*tulle-local"):
        Cluster(type(target())(target().kubeconfig, "nowhere"))
    with pytest.raises(ClusterError, match=r"does not exist\n"):
        Cluster(type(target())(str(tmp_path / "none"), "nowhere"))
    (tmp_path / "broken").write_text("just text")
    with pytest.raises(ClusterError, match="broken"):
        Cluster(type(target())(str(tmp_path / "broken"), "nowhere"))
    (tmp_path / "dead").write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "contexts": [{"name": "dead", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    with pytest.raises(ClusterError, match=r"context 'dead' of .* does not answer.*\n.*--context"):
        Cluster(type(target())(str(tmp_path / "dead"), "dead")).version()
