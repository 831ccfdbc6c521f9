"""The keeper as a process of its own beside a whole deployed mesh: it renews, and the next `up` shows no change."""

import base64
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.deploy.deployment import Deployment
from components.deploy.refs import Target
from components.deploy.steps import Action, Tally
from components.trust import authority, objects
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.rest import RestApi, serving, unguarded

NOW = datetime.datetime.now(datetime.UTC)


def up(target: Target) -> Tally:
    found = unguarded(Path(target.kubeconfig).parent)
    deployment = Deployment(
        found, "local", found.config("local", {"demo.enabled": "false", "prometheus.enabled": "false"}), target
    )
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


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestApi, Target, authority.KeyPair]]:
    """A deployed mesh whose anchor is two years old."""
    with serving(tmp_path_factory.mktemp("api")) as (api, target):
        anchor = authority.make_anchor("tulle", "cluster.local", NOW - authority.ISSUER_LIFETIME * 2)
        body = objects.anchor_secret(labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET, anchor)
        api.put("secrets", body, labels.TRUST_NAMESPACE)
        up(target)
        assert pair(api, labels.ANCHOR_SECRET, labels.TRUST_NAMESPACE) == anchor, "what was there is kept"
        yield api, target, anchor


@pytest.mark.timeout(120)
@pytest.mark.parametrize("age", [0.7, 1.5], ids=["in its last third", "long expired"])
def test_the_keeper_renews_and_the_next_up_shows_no_change(
    age: float, mesh: tuple[RestApi, Target, authority.KeyPair]
) -> None:
    api, target, anchor = mesh
    old = authority.make_issuer(anchor, "tulle", "cluster.local", NOW - authority.ISSUER_LIFETIME * age)
    body = objects.issuer_secret(labels.MESH_NAMESPACE, old, anchor.certificate)
    api.put("secrets", body, labels.MESH_NAMESPACE)
    environment = {**os.environ, "KUBECONFIG": target.kubeconfig, "PYTHONUNBUFFERED": "1"}
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
    assert [step.label for step in up(target).steps if step.action is not Action.SAME] == []
    assert api.versions() == before


def test_no_key_is_in_anything_that_a_deployment_writes_but_its_two_secrets(
    mesh: tuple[RestApi, Target, authority.KeyPair],
) -> None:
    api, _, anchor = mesh
    for key in (anchor.key, pair(api, labels.ISSUER_SECRET, labels.MESH_NAMESPACE).key):
        encoded = base64.b64encode(key.encode()).decode()
        holders = [name for name, body in api.objects.items() if encoded in json.dumps(body)]
        assert [holder[0] for holder in holders] == ["secrets"]
        assert not [name for name, body in api.objects.items() if key.splitlines()[1] in json.dumps(body)]
