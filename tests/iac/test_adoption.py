"""A mesh on a cluster that others use: their namespaces, issuer and Prometheus; and what `down` leaves them."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.cli.deploy_commands import down, up
from components.deploy.refs import Target
from components.trust import authority
from proxy.api import labels
from tests.iac.kit import ROOT, mesh_graph
from tests.iac.rest import RestApi, serving

NOW = datetime.datetime.now(datetime.UTC)
ANCHOR = authority.make_anchor("tulle", "cluster.local", NOW)


def invoke(command: Any, target: Target, folder: Path, *more: str) -> tuple[int, str]:
    (folder / "ca.crt").write_text(ANCHOR.certificate)
    options = ["--stack", "existing", "--cwd", str(ROOT), "--yes"]
    options += ["--context", target.context, "--kubeconfig", target.kubeconfig, "-c", f"trust.bundle=@{folder}/ca.crt"]
    result = CliRunner().invoke(command, [*options, *more])
    return result.exit_code, result.output


def theirs(api: RestApi) -> dict[str, Any]:
    namespace = api.get("namespaces", "default")
    assert namespace is not None
    metadata = namespace["metadata"]
    return {"labels": metadata.get("labels") or {}, "annotations": metadata.get("annotations") or {}}


@pytest.mark.timeout(200)
def test_a_namespace_of_others_is_meshed_in_place_and_given_back(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        own = {"labels": {"team": "shop"}, "annotations": {"note": "ours"}}
        api.put("namespaces", {"kind": "Namespace", "metadata": {"name": "default", **own}})
        code, text = invoke(up, target, tmp_path)
        assert code == 0, text
        assert theirs(api) == {
            "labels": {"team": "shop", labels.MESHED_NAMESPACE: "enabled"},
            "annotations": {"note": "ours", labels.INJECT: "enabled"},
        }
        # Identity signs with the Secret that cert-manager keeps; no key is made here, and nothing renews it.
        identity = api.get("deployments", "identity", "tulle")
        assert identity is not None
        volumes = identity["spec"]["template"]["spec"]["volumes"]
        assert [each["secret"]["secretName"] for each in volumes if "secret" in each] == ["mesh-issuer"]
        assert not [name for name in api.objects if name[0] == "secrets" or name[2] == "trust"]
        assert api.get("deployments", "prometheus", "tulle") is None
        # While pods of theirs have proxies the control plane stays.
        meshed = {"labels": {labels.CONTROL_PLANE_NAMESPACE: "tulle"}}
        api.put("pods", {"kind": "Pod", "metadata": {"name": "web-1", **meshed}}, "default")
        api.put("pods", {"kind": "Pod", "metadata": {"name": "identity-1", **meshed}}, "tulle")
        before = api.versions()
        code, text = invoke(down, target, tmp_path)
        assert code == 1
        assert "1 pods that this stack does not own are still in its mesh: default/web-1" in text
        assert "--leave-injected" in text
        assert api.versions() == before
        code, text = invoke(down, target, tmp_path, "--leave-injected")
        assert code == 0, text
        assert theirs(api) == own
        assert api.get("namespaces", "tulle") is None


def test_a_kept_issuer_means_no_anchor_no_issuer_and_no_keeper_of_our_own() -> None:
    graph = mesh_graph("existing", trust_bundle=ANCHOR.certificate)
    assert not graph.of("TrustAnchor")
    assert not graph.of("Issuer")
    assert not [each for each in graph.of("Deployment") if each.inputs["metadata"]["name"] == "trust"]
    bundle = graph.one("ConfigMap", labels.BUNDLE_CONFIG_MAP).inputs["data"]
    assert bundle == {labels.BUNDLE_KEY: ANCHOR.certificate}
