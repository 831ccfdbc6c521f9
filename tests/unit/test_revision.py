"""Control planes side by side: whom each serves, and what its proxies are told."""

import json
from typing import Any

import pytest

from components.forms import FORMS
from components.injector.config import InjectorConfig, ProxySettings
from components.injector.control_plane import served_by
from components.injector.patch import inject_pod
from components.revision.names import named, revision_of, serving, users
from proxy.api import labels

CONFIG = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1"))
POD = {"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"containers": [{"name": "app"}]}}


def injected(revision: str, namespace: str = "shop", native: bool = True) -> dict[str, Any]:
    config = served_by(CONFIG, revision) if revision else CONFIG
    found = inject_pod(POD, config, config.proxy, native=native)
    found["metadata"]["namespace"] = namespace
    return found


def env(pod: dict[str, Any]) -> dict[str, str]:
    (proxy,) = (each for each in pod["spec"]["initContainers"] if each["name"] == labels.PROXY_CONTAINER)
    return {each["name"].removeprefix("TULLE_PROXY_"): each.get("value", "") for each in proxy["env"]}


def test_proxies_of_a_revision_ask_its_identity_and_its_destination_and_nothing_else_differs() -> None:
    own, canary = env(injected("")), env(injected("canary"))
    differing = {name: value for name, value in canary.items() if own.get(name) != value}
    domain = "tulle.serviceaccount.identity.tulle.cluster.local"
    assert differing == {
        "IDENTITY_SVC_ADDR": "identity-canary-headless.tulle.svc.cluster.local.:8080",
        "IDENTITY_SVC_NAME": f"identity-canary.{domain}",
        "DESTINATION_SVC_ADDR": "destination-canary-headless.tulle.svc.cluster.local.:8086",
        "DESTINATION_SVC_NAME": f"destination-canary.{domain}",
    }
    assert own.keys() == canary.keys()


@pytest.mark.parametrize("native", [True, False])
def test_whom_a_pods_proxy_asks_shows_whom_it_is_served_by(native: bool) -> None:
    assert serving(injected("", native=native)).startswith("destination.tulle.")
    assert serving(injected("canary", native=native)).startswith("destination-canary.tulle.")
    assert serving(POD) == ""


def test_the_users_of_a_revision_are_namespaces_other_than_its_own() -> None:
    pods = [injected("canary"), injected("canary"), injected("", "bank"), injected("canary", "tulle"), POD]
    assert users("canary", "tulle", pods) == ["shop"]
    # One whose name begins alike is another.
    assert users("can", "tulle", pods) == []
    assert users("canary", "other-mesh", pods) == []


@pytest.mark.parametrize(
    ("given", "served"),
    [(None, ""), ({}, ""), ({labels.REVISION: "canary"}, "canary"), ({labels.REVISION: "gone"}, "")],
)
def test_a_namespace_is_served_by_the_revision_that_its_label_names_if_there_is_one(
    given: dict[str, str] | None, served: str
) -> None:
    assert revision_of({"metadata": {"labels": given}}, {"", "canary"}) == served


def test_the_meshs_own_parts_keep_their_names() -> None:
    assert named("identity", "") == "identity"
    assert named("identity", "canary") == "identity-canary"


REFERENCES = {"proxy": "r.example/proxy@sha256:1", "control": "r.example/control:2"}


@pytest.mark.parametrize("value", [{}, {"canary": "0.2.0"}, {"v2": REFERENCES}])
def test_what_a_stack_may_declare(value: dict[str, Any]) -> None:
    assert FORMS["revisions"].parse(json.dumps(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"Canary": "0.2.0"},
        {"a" * 21: "0.2.0"},
        {"canary-": "0.2.0"},
        {"": "0.2.0"},
        {"canary": ""},
        {"canary": 2},
        {"canary": None},
        {"canary": {"proxy": "r.example/proxy:2"}},
        {"canary": {**REFERENCES, "prometheus": "r.example/prometheus:2"}},
        {"canary": {**REFERENCES, "proxy": "with space"}},
        {"canary": {**REFERENCES, "proxy": 1}},
    ],
)
def test_what_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".?"):
        FORMS["revisions"].parse(json.dumps(value))
