"""Each rule refuses what it must and lets pass what it may; levels and parameters come from the stack's file."""

import datetime
import json

import pytest

from policies.rules.catalogue import RULES
from policies.rules.model import CONFIG, UNKNOWN, PolicyConfigError, Resource, Rule, apply
from tests.iac.kit import ROOT
from tests.policies.examples import EXAMPLES, NOW, anchor, deployment, injector_config, k8s, prometheus, webhook

BY_NAME = {rule.name: rule for rule in RULES}


def found(name: str, resources: list[Resource], **parameters: object) -> list[str]:
    config = {name: {"enforcementLevel": "mandatory", **parameters}}
    return [str(each) for each in apply([BY_NAME[name]], resources, config, NOW)]


def test_every_rule_has_its_examples() -> None:
    assert set(EXAMPLES) == set(BY_NAME)
    assert len(BY_NAME) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_one_is_allowed_and_one_is_refused_by_name_value_and_remedy(rule: Rule) -> None:
    example = EXAMPLES[rule.name]
    assert found(rule.name, example.allowed, **example.parameters) == []
    (text,) = found(rule.name, example.refused, **example.parameters)
    assert rule.name in text
    assert example.words in text
    assert any(resource.title in text for resource in example.refused)
    assert text.endswith(".")
    assert rule.sentence.endswith(".")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_value_known_after_apply_is_no_violation_and_no_crash(rule: Rule) -> None:
    def veiled(value: object) -> object:
        if isinstance(value, dict):
            return {key: inner if key in ("name", "kind") else veiled(inner) for key, inner in value.items()}
        return [veiled(item) for item in value] if isinstance(value, list) else UNKNOWN

    example = EXAMPLES[rule.name]
    unseen = [
        Resource(each.type, each.name, {key: veiled(inner) for key, inner in each.properties.items()}, True)
        for each in example.refused
    ]
    texts = found(rule.name, unseen, **example.parameters)
    wholly = [Resource(each.type, each.name, dict.fromkeys(each.properties, UNKNOWN), True) for each in example.refused]
    assert not [text for text in found(rule.name, wholly, **example.parameters) if UNKNOWN in text]
    # What is missing altogether is missing whatever the unknown values will be.
    assert not [text for text in texts if UNKNOWN in text]


def test_a_key_is_found_wherever_it_stands_and_never_repeated() -> None:
    import base64

    pair = anchor(100)
    secret = k8s("Secret", "s", "tulle", data={"tls.key": base64.b64encode(pair.key.encode()).decode()})
    (text,) = found("no-private-key", [secret])
    assert "data.tls.key" in text
    assert pair.key.splitlines()[1] not in text
    (text,) = found("no-private-key", [deployment("web", {"name": "web", "env": [{"name": "K", "value": pair.key}]})])
    assert "containers[0].env[0].value" in text


def test_expired_and_not_yet_valid_certificates_are_told_apart() -> None:
    for days, words in ((-1, "expired on"), (20, "in less than 30 days"), (3700, "valid only from")):
        resource = Resource(CONFIG, "prod", {"trust.bundle": anchor(days).certificate})
        (text,) = found("certificates-current", [resource])
        assert words in text
    soon = Resource(CONFIG, "prod", {"trust.bundle": anchor(20).certificate})
    assert found("certificates-current", [soon], days=10) == []


def test_the_default_image_of_the_injector_counts_too() -> None:
    (text,) = found("proxy-image-by-digest", [injector_config(image="proxy:latest")])
    assert "every injected proxy runs proxy:latest" in text


def test_a_retention_by_size_is_measured_against_the_volume() -> None:
    by_time = "--storage.tsdb.retention.time=30d"
    assert found("prometheus-retention-fits", [prometheus(by_time, "--storage.tsdb.retention.size=7GB")]) == []
    (text,) = found("prometheus-retention-fits", [prometheus(by_time, "--storage.tsdb.retention.size=8GB")])
    assert "retention.size 8GB" in text
    assert found("prometheus-retention-fits", [prometheus(by_time)], gibibytesPerDay=0.1) == []


def test_a_webhook_that_ignores_failures_needs_neither() -> None:
    lenient = webhook()
    (hook,) = lenient.properties["webhooks"]
    hook["failurePolicy"] = "Ignore"
    assert found("webhook-spares-itself", [lenient]) == []
    assert found("webhook-replicas", [lenient, deployment("injector")]) == []


def test_levels_are_the_stacks() -> None:
    refused = EXAMPLES["no-wildcard-rbac"].refused
    rule = BY_NAME["no-wildcard-rbac"]

    def levels(config: dict[str, object]) -> list[str]:
        return [each.level for each in apply([rule], refused, config, NOW)]

    assert levels({}) == ["mandatory"]
    assert levels({"all": "advisory"}) == ["advisory"]
    assert levels({"all": "advisory", rule.name: "mandatory"}) == ["mandatory"]
    assert levels({rule.name: {"enforcementLevel": "disabled"}}) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"no-wildcards": "mandatory"}, "there is no policy 'no-wildcards'; there are anchor-protected"),
        ({"no-wildcard-rbac": "strict"}, "level is 'strict', but must be one of mandatory"),
        ({"webhook-replicas": {"minimun": 2}}, "no parameter 'minimun'; it has minimum"),
        ({"webhook-replicas": {"minimum": "2"}}, "minimum is '2', but must be of type int"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(PolicyConfigError, match=words):
        apply(RULES, [], config, datetime.datetime.now(datetime.UTC))


def test_the_files_of_the_stacks_are_usable_and_prod_spares_nothing() -> None:
    paths = sorted((ROOT / "policies").glob("policy-config*.json"))
    assert len(paths) == 4
    for path in paths:
        apply(RULES, [], json.loads(path.read_text()), NOW)
    assert json.loads((ROOT / "policies" / "policy-config.prod.json").read_text()) == {"all": "mandatory"}
