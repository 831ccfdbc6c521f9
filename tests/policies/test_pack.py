"""The pack as Pulumi runs it: a process of its own environment, asked over gRPC, with the examples of the rules."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc, engine_pb2_grpc

from policies.rules.catalogue import RULES
from policies.rules.model import CONFIG, UNKNOWN, Resource, Rule
from tests.iac.kit import ROOT
from tests.policies.examples import EXAMPLES, k8s

PYTHON = Path(sys.prefix) / "policies" / "bin" / "python"


class Engine(engine_pb2_grpc.EngineServicer):
    """The part of Pulumi's engine that a pack speaks to."""

    def Log(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


@pytest.fixture(scope="module")
def pack() -> Iterator[Any]:
    if not PYTHON.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the policy pack has no environment ({PYTHON}): make setup")
        pytest.skip("the policy pack has no environment: `make setup` makes it")
    server = grpc.server(ThreadPoolExecutor(4))
    engine_pb2_grpc.add_EngineServicer_to_server(Engine(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [str(PYTHON), "-u", "-m", "pulumi.policy", f"127.0.0.1:{port}", str(ROOT / "policies")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/", env=environment)
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        with grpc.insecure_channel(address) as channel:
            yield analyzer_pb2_grpc.AnalyzerStub(channel)
    finally:
        process.kill()
        process.wait()
        server.stop(None)


def ask(pack: Any, rule: Rule, resources: Sequence[Resource], parameters: Any) -> list[Any]:
    """What the pack says to these resources with this one rule configured."""
    settings = analyzer_pb2.PolicyConfig(enforcementLevel=analyzer_pb2.MANDATORY)
    settings.properties.update(dict(parameters))
    pack.Configure(analyzer_pb2.ConfigureAnalyzerRequest(policyConfig={rule.name: settings}))
    said = []
    whole = []
    for each in resources:
        properties = json_format.ParseDict(dict(each.properties), struct_pb2.Struct())
        urn = f"urn:pulumi:prod::tulle::{each.type}::{each.name}"
        common: dict[str, Any] = {"type": each.type, "name": each.name, "urn": urn, "properties": properties}
        options = analyzer_pb2.AnalyzerResourceOptions(protect=each.protect)
        said += pack.Analyze(analyzer_pb2.AnalyzeRequest(options=options, **common)).diagnostics
        whole.append(analyzer_pb2.AnalyzerResource(options=options, **common))
    said += pack.AnalyzeStack(analyzer_pb2.AnalyzeStackRequest(resources=whole)).diagnostics
    return [each for each in said if each.policyName == rule.name]


def test_the_pack_has_every_rule(pack: Any) -> None:
    info = pack.GetAnalyzerInfo(empty_pb2.Empty())
    assert info.name == "tulle"
    assert [policy.name for policy in info.policies] == [rule.name for rule in RULES]
    for policy, rule in zip(info.policies, RULES, strict=True):
        assert policy.description == rule.sentence
        assert set(policy.configSchema.properties) == set(rule.parameters)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_pack_agrees_with_the_rule(pack: Any, rule: Rule) -> None:
    example = EXAMPLES[rule.name]
    if any(each.type == CONFIG for each in example.refused):
        # A stack's own config is not shown to a pack: the same text in an object is.
        (text,) = example.refused[0].properties.values()
        refused, words = [k8s("ConfigMap", "c", "tulle", data={"k": text})], "data.k"
    else:
        refused, words = example.refused, example.words
    assert ask(pack, rule, example.allowed, example.parameters) == []
    (diagnostic,) = ask(pack, rule, refused, example.parameters)
    assert words in diagnostic.message
    assert diagnostic.enforcementLevel == analyzer_pb2.MANDATORY


def test_an_unknown_hides_only_itself(pack: Any) -> None:
    (rule,) = [rule for rule in RULES if rule.name == "no-wildcard-rbac"]
    veiled = k8s("Role", "r", "tulle", rules=[{"apiGroups": UNKNOWN, "resources": ["*"], "verbs": ["get"]}])
    (diagnostic,) = ask(pack, rule, [veiled], {})
    assert "resources ['*']" in diagnostic.message
    assert diagnostic.enforcementLevel == analyzer_pb2.MANDATORY
