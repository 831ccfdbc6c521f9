"""Machines outside the cluster, as they are declared and as their tokens are made."""

import datetime
from pathlib import Path
from typing import Any

import pulumi
import pytest
from click.testing import CliRunner

from components.cli.main import cli
from components.external import joining
from components.external.resource import SCHEMA
from components.package.external import ExternalWorkload, ExternalWorkloadArgs
from tests.iac.kit import Graph, mesh_graph, run
from tests.iac.rest import serving
from tests.kit.facts import raw_external

IDENTITY = "db.shop.serviceaccount.identity.tulle.cluster.local"


def workload(**more: Any) -> Graph:
    args: ExternalWorkloadArgs = {"namespace": "shop", "address": "192.0.2.10", **more}  # type: ignore[typeddict-item]
    return run(lambda: ExternalWorkload("db", args))


def test_a_machine_is_declared_with_the_identity_of_its_name() -> None:
    made = workload(ports={"sql": 5432.0}).one("ExternalWorkload", "db").inputs
    assert made["metadata"]["labels"]["app"] == "db"
    assert made["spec"] == {
        "meshTLS": {"identity": "spiffe://cluster.local/ns/shop/sa/db", "serverName": IDENTITY},
        "workloadIPs": [{"ip": "192.0.2.10"}],
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    }


def test_a_name_that_no_certificate_can_carry_is_refused() -> None:
    with pytest.raises(pulumi.RunError, match="db: service account 'DB' is not a lower-case DNS name"):
        workload(service_account="DB")


def test_the_mesh_declares_the_kind_and_no_more_rights_than_it_needs() -> None:
    graph = mesh_graph()
    kind = graph.one("CustomResourceDefinition", "externalworkloads.workload.linkerd.io").inputs["spec"]
    assert kind["versions"][0]["subresources"] == {"status": {}}
    rights = {
        (role.inputs["metadata"]["name"], resource, verb)
        for role in graph.of("ClusterRole")
        for rule in role.inputs["rules"]
        if "workload.linkerd.io" in rule.get("apiGroups", rule.get("api_groups", ()))
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not mesh_graph(externalWorkloads_kind="false").of("CustomResourceDefinition")
    assert rights == {
        ("tulle-tulle-destination", "externalworkloads", "list"),
        ("tulle-tulle-destination", "externalworkloads", "watch"),
        ("tulle-tulle-identity", "externalworkloads", "get"),
        ("tulle-tulle-identity", "externalworkloads/status", "update"),
    }


def test_what_joining_writes_is_in_the_schema() -> None:
    now = datetime.datetime.now(datetime.UTC)
    offered = joining.offered(raw_external("vm"), "token", now, datetime.timedelta(minutes=1))
    joined = joining.joined(offered, b"token", b"key", now)
    assert joined is not None
    status = SCHEMA["properties"]["status"]["properties"]
    assert set(joined["status"]["join"]) == set(status["join"]["properties"])
    for condition in joined["status"]["conditions"]:
        assert set(condition) <= set(status["conditions"]["items"]["properties"])


def test_a_token_is_printed_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as (api, target):
        api.put("namespaces", {"metadata": {"name": "demo"}})
        api.put("externalworkloads", raw_external("vm"), "demo")
        command = ["external", "token", "vm", "-n", "demo", "--kubeconfig", target.kubeconfig]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
        token = done.output.strip()
        found = api.get("externalworkloads", "vm", "demo")
        assert found is not None
        assert len(token) == 43
        assert token not in str(api.objects)
        assert token not in "".join(api.bodies)
        moment = datetime.datetime.now(datetime.UTC)
        assert joining.joined(found, token.encode(), b"key", moment) is not None
        longer = CliRunner().invoke(cli, [*command, "--minutes", "16"])
        assert (longer.exit_code, "1<=x<=15" in longer.output) == (2, True)
        absent = CliRunner().invoke(cli, ["external", "token", "no", "-n", "demo", "--kubeconfig", target.kubeconfig])
        assert absent.exit_code == 1
        assert "there is no ExternalWorkload demo/no" in absent.output
