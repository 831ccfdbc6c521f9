"""The whole mesh as `make up` left it on the local cluster: a second `up` changes nothing, and no key is where none may
be.
"""

import base64
import datetime
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from pulumi.dynamic import Config, ConfigureRequest

from components.deploy import inventory, project, target
from components.deploy.cluster import Cluster
from components.deploy.deployment import Deployment
from components.deploy.errors import NotReadyError
from components.deploy.ledger import Ledger
from components.deploy.refs import Ref
from components.deploy.resource import OwnerProvider
from components.forms import IMAGES
from components.injector import resource as injector
from components.injector.resource import InjectionProbe
from components.trust import authority
from components.trust.resource import IssuerProvider
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.tiny import target as local
from tests.iac.tiny import unique

pytestmark = pytest.mark.e2e
WHERE = {"kubeconfig": local().kubeconfig, "context": local().context}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    missing = "" if Path(local().kubeconfig).is_file() else "no local cluster; `make up` starts it"
    if not missing:
        found = Cluster(local())
        if found.get(inventory.address("tulle", "local")) is None:
            missing = "the mesh is not on the local cluster; `make up` deploys it"
    if missing and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    yield found
    found.close()


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> Ledger:
    return Ledger(cluster, "tulle", "local")


def versions(cluster: Cluster, ledger: Ledger) -> dict[str, str]:
    refs = [entry.ref for entry in ledger.entries.values() if entry.form == "object"]
    refs += [
        inventory.address("tulle", "local"),
        Ref("v1", "Secret", labels.MESH_NAMESPACE, labels.ISSUER_SECRET),
        Ref("v1", "Secret", labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET),
    ]
    found = {str(ref): cluster.get(ref) for ref in refs}
    return {
        name: (live or {"metadata": {"resourceVersion": "gone"}})["metadata"]["resourceVersion"]
        for name, live in found.items()
    }


def test_a_second_up_changes_no_resource_version(cluster: Cluster, ledger: Ledger) -> None:
    images = {name: ledger.outputs["images"][name] for name in IMAGES}
    found = project.load(ROOT)
    config = found.config("local", {"images.refs": json.dumps(images)})
    chosen = target.choose("local", config.values, "", "", os.environ)
    deployment = Deployment(found, "local", config, chosen)
    try:
        # Never roll a mesh that other tests are using: what is deployed must be what this code declares.
        plan = deployment.plan()
        assert plan.quiet, [step for step in plan.as_json()["steps"] if step["action"] != "same"]
        before = versions(cluster, ledger)
        result = deployment.up()
        assert result.tally.quiet, [step for step in result.tally.as_json()["steps"] if step["action"] != "same"]
        assert versions(cluster, ledger) == before
        assert "gone" not in before.values()
        assert len(before) > 40
    finally:
        deployment.close()


def test_private_keys_are_in_the_two_secrets_alone(cluster: Cluster) -> None:
    keys = []
    for namespace, name in (
        (labels.MESH_NAMESPACE, labels.ISSUER_SECRET),
        (labels.TRUST_NAMESPACE, labels.ANCHOR_SECRET),
    ):
        secret = cluster.get(Ref("v1", "Secret", namespace, name))
        assert secret is not None
        keys.append(base64.b64decode(secret["data"]["tls.key"]).decode())
    bodies = [key.splitlines()[1] for key in keys]
    for kind in ("ConfigMap", "Event", "Pod"):
        text = json.dumps(cluster.list("v1", kind))
        assert not [body for body in bodies if body in text], kind
    holders = [
        f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
        for secret in cluster.list("v1", "Secret")
        if any(base64.b64encode(key.encode()).decode() in (secret.get("data") or {}).values() for key in keys)
    ]
    assert len(holders) == 2


@pytest.mark.parametrize("account", ["identity", "destination", "injector", "prometheus"])
def test_no_workload_may_read_the_trust_namespace(cluster: Cluster, account: str) -> None:
    user = f"system:serviceaccount:{labels.MESH_NAMESPACE}:{account}"
    for verb in ("get", "list", "watch"):
        attributes = {"namespace": labels.TRUST_NAMESPACE, "verb": verb, "resource": "secrets"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {"name": ""},
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        assert cluster.create(review)["status"]["allowed"] is False


def test_a_namespace_is_ready_when_a_dry_run_pod_comes_back_injected(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    InjectionProbe().create({**WHERE, "namespace": "demo", "trigger": "1"})
    monkeypatch.setattr(injector, "PATIENCE_SECONDS", 2.0)
    with pytest.raises(NotReadyError, match=r"namespace default are not injected after 2 s: .* without a proxy\n.*log"):
        InjectionProbe().create({**WHERE, "namespace": "default", "trigger": "1"})


def test_under_the_cli_the_stack_is_marked_and_the_other_deployers_refused(cluster: Cluster) -> None:
    name = unique()
    props = {**WHERE, "project": name, "stack": "t"}
    cli = OwnerProvider()
    cli.configure(ConfigureRequest(Config({}, name)))
    assert cli.check({}, props).failures == []
    made = cli.create(props)
    try:
        marked = cluster.get(inventory.address(name, "t"))
        assert marked is not None
        assert marked["data"]["owner"] == "pulumi"
        assert cli.check({}, props).failures == []
        cluster.replace({**marked, "data": {**marked["data"], "owner": "embedded"}})
        (failure,) = cli.check({}, props).failures
        assert "tulle handover --to cli --stack t" in failure.reason
        embedded = OwnerProvider()
        embedded.configure(ConfigureRequest(Config({f"{name}:deployer": "embedded"}, name)))
        assert embedded.check({}, props).failures == []
    finally:
        cli.delete(made.id, props)
    assert cluster.get(inventory.address(name, "t")) is None


def test_a_brought_issuer_goes_from_config_to_its_secret_and_nowhere_else(cluster: Cluster) -> None:
    now = datetime.datetime.now(datetime.UTC)
    anchor = authority.make_anchor("tulle", "cluster.local", now)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", now)
    namespace = unique()
    ref = Ref("v1", "Namespace", "", namespace)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        provider = IssuerProvider()
        provider.configure(ConfigureRequest(Config({"p:trust.issuerKey": issuer.key}, "p")))
        brought = {"brought": issuer.certificate, "bundle": anchor.certificate, "key_hash": "1"}
        props = {**WHERE, "namespace": namespace, "trust_domain": "cluster.local", **brought}
        made = provider.create(props)
        assert issuer.key.splitlines()[1] not in json.dumps(made.outs)
        secret = cluster.get(Ref("v1", "Secret", namespace, labels.ISSUER_SECRET))
        assert secret is not None
        assert base64.b64decode(secret["data"]["tls.key"]).decode() == issuer.key
        assert not provider.diff(made.id, dict(made.outs or {}), props).changes
        assert provider.diff(made.id, dict(made.outs or {}), {**props, "key_hash": "2"}).changes
        assert issuer.key.splitlines()[1].encode() not in pickle.dumps(provider)
        provider.delete(made.id, props)
        assert cluster.get(Ref("v1", "Secret", namespace, labels.ISSUER_SECRET)) is None
    finally:
        cluster.delete(ref)
