"""`tulle render`: the objects of the stack in one order, the same as the embedded deployer applies, and no secret."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.cli.render import render, rendered
from components.deploy.deployment import Deployment
from components.deploy.refs import Ref
from components.forms import IMAGES
from components.trust import authority
from proxy.api import labels
from tests.iac.kit import ROOT, fit_nodes
from tests.iac.rest import serving, unguarded
from tests.iac.test_trust import NOW

Manifest = dict[str, Any]


DIGESTS = json.dumps(dict.fromkeys(IMAGES, "sha256:" + "0" * 64))
"""Without digests the policies of prod refuse it."""


def objects(stack: str, *pairs: str) -> list[Manifest]:
    return rendered(stack, (*pairs, f"images.digests={DIGESTS}"), ROOT)[0]


def applied(stack: str, folder: Path, **overrides: str) -> list[Manifest]:
    """What the embedded deployer sends for a stack, dynamic resources aside."""
    found = unguarded(folder)
    with serving(folder) as (api, target):
        deployment = Deployment(found, stack, found.config(stack, {"images.digests": DIGESTS, **overrides}), target)
        try:
            deployment.up()
        finally:
            deployment.close()
    sent = [json.loads(body) for (verb, _), body in zip(api.writes, api.bodies, strict=True) if verb == "PATCH"]
    # Written by the vault, not declared: the issuer's key is made in the cluster in either way.
    return [body for body in sent if body["kind"] != "Secret"]


def by_name(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = {str(Ref.of(manifest)): manifest for manifest in manifests}
    assert len(found) == len(manifests)
    return found


@pytest.mark.parametrize("stack", ["local", "prod"])
def test_both_ways_give_the_same_objects_but_for_trust_material(stack: str, tmp_path: Path) -> None:
    nodes = fit_nodes(tmp_path, stack)
    printed = by_name(objects(stack, f"nodes.report={nodes}"))
    sent = by_name(applied(stack, tmp_path, **{"nodes.report": nodes}))
    assert len(printed) > 30
    only_printed, only_sent = set(printed) - set(sent), set(sent) - set(printed)
    assert all("trust-bootstrap" in name for name in only_printed), only_printed
    assert only_sent == {f"ConfigMap tulle/{labels.BUNDLE_CONFIG_MAP}"}
    for name in set(printed) & set(sent):
        assert printed[name] == sent[name], name


def test_the_text_is_the_same_every_time() -> None:
    options = ["--stack", "local", "-c", f"images.digests={DIGESTS}"]
    here = CliRunner().invoke(render, options)
    assert here.exit_code == 0, here.output
    # Another process, which orders its sets otherwise.
    command = [sys.executable, "-m", "components.cli.main", "render", *options]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == here.output
    assert list(yaml.safe_load_all(done.stdout)) == objects("local")


def test_what_something_needs_comes_before_it() -> None:
    seen: set[str] = set()
    place: dict[str, int] = {}
    for number, manifest in enumerate(objects("local")):
        ref = Ref.of(manifest)
        assert not ref.namespace or f"Namespace {ref.namespace}" in seen, ref
        if ref.kind in ("Deployment", "Job"):
            account = manifest["spec"]["template"]["spec"].get("serviceAccountName")
            assert not account or f"ServiceAccount {ref.namespace}/{account}" in seen, ref
        seen.add(str(ref))
        place[str(ref)] = number
    # Pods of meshed namespaces come after the webhook that would otherwise miss them.
    webhook = place["MutatingWebhookConfiguration tulle-injector"]
    assert place["Deployment tulle/injector"] < webhook < place["Deployment demo/web"]


def test_no_secret_is_printed_and_a_brought_issuers_secret_is_asked_for(tmp_path: Path) -> None:
    anchor = authority.make_anchor("tulle", "cluster.local", NOW)
    issuer = authority.make_issuer(anchor, "tulle", "cluster.local", NOW)
    options = ["--stack", "local"]
    for name, text in (
        ("issuerCertificate", issuer.certificate),
        ("issuerKey", issuer.key),
        ("bundle", anchor.certificate),
    ):
        (tmp_path / name).write_text(text)
        options += ["-c", f"trust.{name}=@{tmp_path / name}"]
    result = CliRunner().invoke(render, options)
    assert result.exit_code == 0, result.output
    assert "PRIVATE KEY" not in result.output
    assert issuer.key.splitlines()[1] not in result.output
    assert f"create secret tls {labels.ISSUER_SECRET}" in result.output
    found = by_name(list(yaml.safe_load_all(result.output)))
    assert found[f"ConfigMap tulle/{labels.BUNDLE_CONFIG_MAP}"]["data"][labels.BUNDLE_KEY] == anchor.certificate
    assert not [name for name in found if "bootstrap" in name or name.startswith("Secret")]


def test_a_job_carries_a_hash_of_what_it_runs() -> None:
    def job(*pairs: str) -> Manifest:
        (found,) = [each for each in objects("local", *pairs) if each["kind"] == "Job"]
        return found

    assert job() == job()
    other = job("trustDomain=example.org")
    assert other["metadata"]["name"] != job()["metadata"]["name"]
    assert "--trust-domain=example.org" in other["spec"]["template"]["spec"]["containers"][0]["command"]


def test_a_program_with_a_secret_or_a_dynamic_resource_is_refused(tmp_path: Path) -> None:
    from components.deploy.errors import DeployError
    from components.deploy.registration import Registration
    from components.deploy.rendering import Renderer

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}
    with pytest.raises(DeployError, match="Secret s holds a secret"):
        Renderer().register(Registration("u", "kubernetes:core/v1:Secret", "s", secret))
    with pytest.raises(DeployError, match="which no manifest can say"):
        Renderer().register(Registration("u", "pulumi-python:dynamic/tulle:TrustAnchor", "a", {}))
