"""A stack handed from the embedded deployer to the Pulumi CLI and back, and what moved inside its program."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pulumi.dynamic import Config, ConfigureRequest

from components.cli.deploy_commands import handover, up
from components.deploy import inventory, project
from components.deploy.deployment import Deployment
from components.deploy.errors import OwnershipError
from components.deploy.refs import Ref, Target
from components.deploy.resource import OwnerProvider
from components.deploy.steps import Action, Tally
from proxy.api import labels
from tests.iac.rest import RestApi, serving, unguarded
from tests.iac.tiny import Tiny, unique
from tests.kit.cluster import Kube

QUICK = {"demo.enabled": "false", "prometheus.enabled": "false"}
PARTS = """
import pulumi
import pulumi_kubernetes as k8s
from components.package import CertificateAuthority, ControlPlane

cluster = pulumi.Config("kubernetes")
mesh = {
    "context": cluster.require("context"), "kubeconfig": cluster.require("kubeconfig"), "trust_protect": False,
    "prometheus_enabled": False, "labels": {"team": "platform"},
}
moved = pulumi.ResourceOptions(aliases=[pulumi.Alias(name="tulle-authority")])
provider = k8s.Provider(
    "mine", context=mesh["context"], kubeconfig=mesh["kubeconfig"], enable_server_side_apply=True
)
options = pulumi.ResourceOptions(provider=provider)
exempt = {"config.linkerd.io/admission-webhooks": "disabled"}
home, vault = (
    k8s.core.v1.Namespace(name, metadata={"name": name, "labels": exempt}, opts=options)
    for name in ("tulle", "tulle-trust")
)
trust = CertificateAuthority(
    "trust",
    {"mesh": mesh, "mesh_namespace": home.metadata["name"], "trust_namespace": vault.metadata["name"]},
    pulumi.ResourceOptions.merge(options, moved),
)
after = pulumi.ResourceOptions(provider=provider, depends_on=[trust])
plane = ControlPlane("control", {"mesh": mesh, "namespace": home.metadata["name"]}, after)
pulumi.export("bundle", trust.bundle)
pulumi.export("namespace", plane.namespace)
"""


def deployment(target: Target) -> Deployment:
    folder = Path(target.kubeconfig).parent
    found = project.load(folder) if (folder / "__main__.py").is_file() else unguarded(folder)
    return Deployment(found, "local", found.config("local", QUICK), target)


def deploy(target: Target) -> Tally:
    made = deployment(target)
    try:
        return made.up().tally
    finally:
        made.close()


def plan(target: Target) -> Tally:
    made = deployment(target)
    try:
        return made.plan()
    finally:
        made.close()


def invoke(command: Any, target: Target, *more: str) -> tuple[int, str]:
    options = ["--stack", "local", "--cwd", str(Path(target.kubeconfig).parent), "--context", target.context]
    options += ["--kubeconfig", target.kubeconfig, *(f"-c{key}={value}" for key, value in QUICK.items())]
    result = CliRunner().invoke(command, [*options, *more])
    return result.exit_code, result.output


def values(api: RestApi) -> dict[Any, Any]:
    """All objects but the deployer's notes, without what only bookkeepers write."""
    kept = {}
    for key, body in api.objects.items():
        if "inventory" not in key[2]:
            metadata = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
            kept[key] = {**body, "metadata": metadata}
    return kept


def anchor_key(api: RestApi) -> str:
    secret = api.get("secrets", labels.ANCHOR_SECRET, labels.TRUST_NAMESPACE)
    assert secret is not None
    return str(secret["data"]["tls.key"])


@pytest.mark.timeout(200)
def test_a_stack_goes_to_the_cli_and_back_with_no_object_changed(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        deploy(target)
        before, manager = values(api), "tulle-tulle-local"
        code, text = invoke(handover, target, "--to", "cli", "-c", "replicas=2", "--yes")
        assert code == 1
        assert "cannot be handed over\n  Deploy it first: tulle up --stack local" in text
        code, text = invoke(handover, target, "--to", "cli", "--yes")
        assert code == 0, text
        assert "pulumi up --stack local" in text
        assert values(api) == before
        # No object is held any more, so the CLI's field manager meets no conflict; and this deployer refuses.
        held = [field for each in api.objects.values() for field in each["metadata"].get("managedFields", [])]
        assert manager not in {field["manager"] for field in held}
        code, text = invoke(up, target, "--yes")
        assert code == 1
        assert "belongs to the deployer 'pulumi'" in text
        assert "tulle handover --to embedded" in text
        cli = OwnerProvider()
        cli.configure(ConfigureRequest(Config({}, "tulle")))
        props = {"kubeconfig": target.kubeconfig, "context": target.context, "project": "tulle", "stack": "local"}
        assert cli.check({}, props).failures == []
        cli.create(props)
        assert values(api) == before
        # Back.
        code, printed = invoke(handover, target, "--to", "embedded", "--yes")
        assert code == 0, printed
        assert "pulumi stack rm --force" in printed
        assert values(api) == before
        assert cli.check({}, props).failures != []
        assert deploy(target).quiet
        code, text = invoke(handover, target, "--to", "embedded", "--yes")
        assert code == 1
        assert "already the deployer 'embedded'" in text
        mark = api.get("configmaps", inventory.config_map_name("tulle", "local"), "kube-system")
        assert anchor_key(api) not in printed + json.dumps(mark)


def test_a_stack_that_nobody_deployed_is_handed_to_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        unguarded(tmp_path)
        code, text = invoke(handover, target, "--to", "embedded", "--yes")
        assert code == 1
        assert "was deployed by nobody here" in text
        assert api.writes == []


@pytest.mark.timeout(200)
def test_a_program_put_together_from_parts_takes_a_whole_mesh_over(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        deploy(target)
        key = anchor_key(api)
        # Without the alias the anchor of the old name would go, and its key with it.
        (tmp_path / "__main__.py").write_text(PARTS.replace('name="tulle-authority"', 'name="another"'))
        actions = {step.label: step.action for step in plan(target).steps}
        assert actions["TrustAnchor/tulle-authority-anchor"] is Action.DELETE
        (tmp_path / "__main__.py").write_text(PARTS)
        made = deployment(target)
        try:
            planned = made.plan()
            result = made.up()
        finally:
            made.close()
        # The anchor has moved in the program, as its alias says, and so in the record; the Secret is the same one.
        assert {step.label: step.action for step in planned.steps}["TrustAnchor/trust-anchor"] is Action.SAME
        assert "TrustAnchor/tulle-authority-anchor" not in {step.label for step in planned.steps}
        assert anchor_key(api) == key
        mark = api.get("configmaps", inventory.config_map_name("tulle", "local"), "kube-system")
        assert mark is not None
        recorded = {entry["key"] for entry in json.loads(mark["data"]["entries"])}
        assert "dynamic/TrustAnchor/trust-anchor" in recorded
        assert "dynamic/TrustAnchor/tulle-authority-anchor" not in recorded
        assert result.outputs["bundle"].startswith("-----BEGIN CERTIFICATE-----")
        assert result.outputs["namespace"] == "tulle"
        identity = api.get("deployments", "identity", "tulle")
        assert identity is not None
        assert identity["metadata"]["labels"]["team"] == "platform"
        assert identity["spec"]["template"]["metadata"]["labels"]["team"] == "platform"
        assert "team" not in identity["spec"]["selector"]["matchLabels"]
        assert plan(target).quiet


@pytest.mark.e2e
@pytest.mark.timeout(200)
def test_a_real_api_server_forgets_who_applied_and_keeps_what_was(kube: Kube, tmp_path: Path) -> None:
    tiny = Tiny.create(tmp_path / "project", unique())
    try:
        tiny.up()
        before = {name: bare(live) for name, live in tiny.live(kube).items() if name != str(tiny.inventory)}
        manager = f"tulle-{tiny.name}-t"
        made = tiny.deployment()
        try:
            assert made.release() == 4
        finally:
            made.close()
        after = tiny.live(kube)
        for name, live in after.items():
            if name != str(tiny.inventory):
                assert bare(live) == before[name], name
                assert manager not in {field.get("manager") for field in live["metadata"].get("managedFields") or []}
        # Another manager takes the fields without a conflict, as the CLI's does; one that is held would be refused.
        ref = Ref("v1", "ConfigMap", tiny.name, "settings")
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"color": "green"}}
        unforced = {"fieldManager": "pulumi-kubernetes-test", "force": "false"}
        kube.request("PATCH", kube.path(ref), unforced, json.dumps(wanted), "application/apply-patch+yaml")
        assert ((kube.get(ref) or {}).get("data") or {})["color"] == "green"
        with pytest.raises(OwnershipError):
            tiny.plan()
        made = tiny.deployment(take=True)
        try:
            assert {step.label for step in made.plan().steps if step.action is Action.UPDATE} == {
                f"ConfigMap {tiny.name}/settings"
            }
            made.up()
        finally:
            made.close()
        assert tiny.plan().quiet
        again = {name: bare(live) for name, live in tiny.live(kube).items() if name != str(tiny.inventory)}
        assert again == before
    finally:
        found = kube.get(tiny.inventory)
        if found is not None and found["data"]["owner"] != inventory.EMBEDDED:
            kube.delete(tiny.inventory)
            tiny.up(adopt=True)
        tiny.down()


def bare(live: Any) -> Any:
    """An object without what only bookkeepers write."""
    dropped = ("managedFields", "resourceVersion")
    return {**live, "metadata": {key: value for key, value in live["metadata"].items() if key not in dropped}}
