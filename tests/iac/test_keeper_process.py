"""The keeper as a process of its own beside a whole deployed mesh: it renews, and the next `up` shows no change."""

import base64
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.deploy import project
from components.deploy.deployment import Deployment
from components.deploy.refs import Target
from components.deploy.steps import Tally
from components.trust import authority, objects
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.rest import RestApi, serving

NOW = datetime.datetime.now(datetime.UTC)


def up(target: Target) -> Tally:
    found = project.load(ROOT)
    deployment = Deployment(found, "local", found.config("local", {}), target)
    try:
        return deployment.up().tally
    finally:
        deployment.close()


def pair(api: RestApi, name: str, namespace: str) -> authority.KeyPair:
    found = api.get("secrets", name, namespace)
    assert found is not None
    return objects.pair_of(found)


def command(api: RestApi) -> list[str]:
    """What the Deployment runs."""
    deployment = api.get("deployments", "trust", labels.TRUST_NAMESPACE)
    assert deployment is not None
    found: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert found[0] == "python3"
    return [sys.executable, *found[1:], "--admin=127.0.0.1:0"]


def until(process: "subprocess.Popen[str]", event: str) -> str:
    """What it says until it says this; the test's own time limit bounds the wait."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if event in line:
            return said
    raise AssertionError(f"the keeper ended without {event}: {said}")


@pytest.mark.parametrize("age", [0.8, 1.5], ids=["in its last third", "long expired"])
@pytest.mark.timeout(120)
def test_the_keeper_renews_and_the_next_up_shows_no_change(age: float, tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        up(target)
        anchor = pair(api, labels.ANCHOR_SECRET, labels.TRUST_NAMESPACE)
        then = NOW - authority.ISSUER_LIFETIME * age
        # The anchor is as old as the issuer: an older pair takes the place of both, as if the mesh had run so long.
        anchor = authority.make_anchor("tulle", "cluster.local", then)
        old = authority.make_issuer(anchor, "tulle", "cluster.local", then)
        for body, namespace in (
            (objects.anchor_secret(labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET, anchor), labels.TRUST_NAMESPACE),
            (objects.issuer_secret(labels.MESH_NAMESPACE, old, anchor.certificate), labels.MESH_NAMESPACE),
        ):
            api.put("secrets", body, namespace)
        bundle = api.get("configmaps", labels.BUNDLE_CONFIG_MAP, labels.MESH_NAMESPACE)
        assert bundle is not None
        api.put("configmaps", {**bundle, "data": {labels.BUNDLE_KEY: anchor.certificate}}, labels.MESH_NAMESPACE)
        environment = {**os.environ, "KUBECONFIG": target.kubeconfig}
        writes = len(api.writes)
        process = subprocess.Popen(command(api), cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            said = until(process, "issuer_renewed")
        finally:
            process.terminate()
            process.communicate(timeout=30)
        assert process.returncode == 0
        made = pair(api, labels.ISSUER_SECRET, labels.MESH_NAMESPACE)
        authority.check_issuer(made, anchor.certificate, datetime.datetime.now(datetime.UTC))
        assert api.writes[writes:] == [("PUT", f"secrets/{labels.MESH_NAMESPACE}/{labels.ISSUER_SECRET}")]
        for key in (made.key, old.key, anchor.key):
            assert key.splitlines()[1] not in said
        before = api.versions()
        issuer = [step for step in up(target).steps if "Issuer" in step.label]
        assert [step.action.name for step in issuer] == ["SAME"]
        place = ("secrets", labels.MESH_NAMESPACE, labels.ISSUER_SECRET)
        assert api.versions()[place] == before[place]


def test_no_key_is_in_anything_that_a_deployment_writes_but_its_two_secrets(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        up(target)
        up(target)
        keys = [
            pair(api, labels.ANCHOR_SECRET, labels.TRUST_NAMESPACE).key,
            pair(api, labels.ISSUER_SECRET, labels.MESH_NAMESPACE).key,
        ]
        for key in keys:
            encoded = base64.b64encode(key.encode()).decode()
            holders = [name for name, body in api.objects.items() if encoded in json.dumps(body)]
            assert len(holders) == 1
            assert holders[0][0] == "secrets"
            assert not [name for name, body in api.objects.items() if key.splitlines()[1] in json.dumps(body)]
