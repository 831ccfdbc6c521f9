"""An anchor's rotation as ordinary deployments of the whole mesh: three steps, each of which waits for its pods."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.deploy.deployment import Deployment
from components.deploy.errors import DeployError
from components.deploy.refs import Target
from components.deploy.steps import Action, Tally
from components.trust import authority, inspection, objects, reports
from components.trust.reports import Report
from components.trust.rotation import Trust
from proxy.api import labels
from tests.iac.rest import Key, RestApi, serving, unguarded

MESH, TRUST = labels.MESH_NAMESPACE, labels.TRUST_NAMESPACE
POD = {
    "kind": "Pod",
    "metadata": {"name": "web-1", "uid": "uid-web", "labels": {labels.CONTROL_PLANE_NAMESPACE: MESH}},
    "status": {"phase": "Running", "containerStatuses": [{"name": "linkerd-proxy", "state": {"running": {}}}]},
}


class Stack:
    """The mesh on an API server in memory, with one meshed pod."""

    def __init__(self, api: RestApi, target: Target) -> None:
        self.api = api
        self.target = target

    def deployment(self, anchors: list[int], signer: int, **more: str) -> Deployment:
        found = unguarded(Path(self.target.kubeconfig).parent)
        values = {"trust.anchors": json.dumps(anchors), "trust.signer": str(signer)}
        values |= {"demo.enabled": "false", "prometheus.enabled": "false"}
        config = found.config("local", {**values, **{key.replace("_", "."): value for key, value in more.items()}})
        return Deployment(found, "local", config, self.target)

    def up(self, anchors: list[int], signer: int, **more: str) -> Tally:
        made = self.deployment(anchors, signer, **more)
        try:
            return made.up().tally
        finally:
            made.close()

    def refused(self, anchors: list[int], signer: int) -> str:
        """Why; nothing that was there is changed, but for the deployer's own notes."""

        def kept() -> dict[Key, str]:
            return {key: version for key, version in self.api.versions().items() if "inventory" not in key[2]}

        before = kept()
        with pytest.raises(DeployError) as caught:
            self.up(anchors, signer)
        assert {key: version for key, version in kept().items() if key in before} == before
        return str(caught.value)

    def trust(self) -> Trust:
        bundle = (self.api.get("configmaps", labels.BUNDLE_CONFIG_MAP, MESH) or {})["data"][labels.BUNDLE_KEY]
        return inspection.trust_of(bundle, objects.text(self.api.get("secrets", labels.ISSUER_SECRET, MESH), "tls.crt"))

    def report(self) -> None:
        """The pod's proxy has taken what is live, as its identity would tell."""
        bundle = (self.api.get("configmaps", labels.BUNDLE_CONFIG_MAP, MESH) or {})["data"][labels.BUNDLE_KEY]
        said = Report(reports.digest(bundle), self.trust().signer[: reports.DIGITS], 2**31)
        self.api.put("configmaps", reports.encode(MESH, {"uid-web": said}), MESH)

    def command(self) -> list[str]:
        deployment = self.api.get("deployments", "trust", TRUST)
        assert deployment is not None
        found: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
        return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(tmp_path_factory.mktemp("api")) as (api, target):
        yield Stack(api, target)


@pytest.mark.timeout(200)
def test_three_steps_each_of_which_waits(stack: Stack) -> None:
    stack.up([1], 1)
    stack.api.put("pods", POD, "demo")
    old, keeper = stack.trust().signer, stack.command()
    assert stack.trust().anchors == {old}
    # Nothing may be left out.
    assert "not trusted yet" in stack.refused([1, 2], 2)
    # Publish: the first time nobody needs to be asked.
    stack.up([1, 2], 1)
    published = stack.trust()
    assert len(published.anchors) == 2
    assert published.signer == old
    (new,) = published.anchors - {old}
    assert stack.api.get("secrets", objects.anchor_name(2), TRUST) is not None
    # Switch: not before the pod has told.
    text = stack.refused([1, 2], 2)
    assert "1 of 1 running meshed pods have not reported that they trust both anchors: demo/web-1" in text
    assert "trust.force" in text
    stack.report()
    stack.up([1, 2], 2)
    assert stack.trust() == Trust(frozenset({old, new}), new)
    # The keeper is told by the issuer which anchor signs, and is not started anew for it.
    assert objects.signed_with(stack.api.get("secrets", labels.ISSUER_SECRET, MESH) or {}) == "tulle-trust-anchor-2"
    assert stack.command() == keeper
    assert [step.label for step in stack.up([1, 2], 2).steps if step.action is not Action.SAME] == []
    # Drop: not before the pod's certificate is of the new anchor.
    assert "have not reported a certificate of an anchor that stays: demo/web-1" in stack.refused([2], 2)
    stack.report()
    stack.up([2], 2)
    assert stack.trust() == Trust(frozenset({new}), new)
    assert stack.api.get("secrets", labels.ANCHOR_SECRET, TRUST) is None
    # And it is at rest: no change, and what follows may be rotated in turn.
    assert [step.label for step in stack.up([2], 2).steps if step.action is not Action.SAME] == []


@pytest.mark.timeout(200)
def test_an_anchor_can_be_replaced_at_once_by_force(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        stack = Stack(api, target)
        stack.up([1], 1)
        api.put("pods", POD, "demo")
        (old,) = stack.trust().anchors
        assert "change the signer and drop an anchor at once" in stack.refused([2], 2)
        stack.up([2], 2, trust_force="true")
        assert old not in stack.trust().anchors
        assert stack.trust().signer in stack.trust().anchors
        assert [step.label for step in stack.up([2], 2).steps if step.action is not Action.SAME] == []


@pytest.mark.timeout(200)
def test_when_everything_has_expired_one_step_recovers_and_the_error_names_it(tmp_path: Path) -> None:
    then = datetime.datetime.now(datetime.UTC) - authority.ANCHOR_LIFETIME * 1.1
    anchor = authority.make_anchor("tulle", "cluster.local", then)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", then)
    with serving(tmp_path) as (api, target):
        stack = Stack(api, target)
        api.put("secrets", objects.anchor_secret(TRUST, labels.ANCHOR_SECRET, anchor), TRUST)
        api.put("secrets", objects.issuer_secret(MESH, issuer, anchor.certificate), MESH)
        api.put("pods", POD, "demo")
        with pytest.raises(DeployError) as caught:
            stack.up([1], 1)
        text = str(caught.value)
        assert f"Secret {TRUST}/{labels.ANCHOR_SECRET} expired at" in text
        assert "-c trust.anchors=[N] -c trust.signer=N -c trust.force=true" in text
        stack.up([2], 2, trust_force="true")
        made = objects.pair_of(api.get("secrets", labels.ISSUER_SECRET, MESH) or {})
        bundle = (api.get("configmaps", labels.BUNDLE_CONFIG_MAP, MESH) or {})["data"][labels.BUNDLE_KEY]
        authority.check_issuer(made, bundle, datetime.datetime.now(datetime.UTC))


def test_only_pods_whose_proxy_runs_are_waited_for(stack: Stack, tmp_path: Path) -> None:
    from components.deploy.cluster import Cluster

    with serving(tmp_path) as (api, target):

        def pod(name: str, phase: str, **status: object) -> None:
            metadata = {**POD["metadata"], "name": name, "uid": name}  # type: ignore[dict-item]
            api.put("pods", {**POD, "metadata": metadata, "status": {"phase": phase, **status}}, "demo")

        running = [{"name": "linkerd-proxy", "state": {"running": {}}}]
        pod("classic", "Running", containerStatuses=running)
        pod("native", "Pending", initContainerStatuses=running)
        pod("starting", "Pending")
        pod("done", "Succeeded", containerStatuses=running)
        pod("crashed", "Running", containerStatuses=[{"name": "linkerd-proxy", "state": {"waiting": {}}}])
        cluster = Cluster(target)
        assert sorted(each.name for each in inspection.running_pods(cluster, MESH)) == ["demo/classic", "demo/native"]
        cluster.close()
