"""Admission reviews: what is asked, and an answer the API server can use."""

import base64
import json
from typing import Any

import pytest

from components.injector.admission import ReviewError, consider, owner_of, read_review
from components.injector.config import InjectorConfig, ProxySettings
from components.injector.decide import Inject, Namespace, Skip
from components.injector.patch import Owner
from tests.unit.test_injector_jsonpatch import apply_patch

CONFIG = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1"))
DEMO = Namespace("demo", {"linkerd.io/inject": "enabled"})
POD: dict[str, Any] = {"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "app"}]}}


def body(pod: Any = POD, **changes: Any) -> bytes:
    request = {
        "uid": "u1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "demo",
        "object": pod,
        **changes,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def answered(given: bytes, namespace: Namespace = DEMO) -> tuple[Any, dict[str, Any]]:
    decision, answer = consider(read_review(given), namespace, CONFIG, native_supported=True)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return decision, answer["response"]


def test_an_injected_pod_is_allowed_with_a_patch_that_makes_it() -> None:
    decision, response = answered(body())
    assert isinstance(decision, Inject)
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u1", True, "JSONPatch")
    operations = json.loads(base64.b64decode(response["patch"]))
    assert apply_patch(POD, operations) == decision.apply(POD, CONFIG)
    assert {operation["op"] for operation in operations} == {"add"}, "what the user wrote is only added to"
    assert response["auditAnnotations"] == {"injection": "native"}


def test_a_skipped_pod_is_allowed_as_it_is() -> None:
    _, response = answered(body(), Namespace("demo"))
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["auditAnnotations"] == {"injection": "injection_enable_annotation_absent"}


def test_a_refused_pod_has_the_reason_in_its_status() -> None:
    pod = {**POD, "metadata": {"annotations": {"linkerd.io/inject": "maybe"}}}
    _, response = answered(body(pod))
    assert response["allowed"] is False
    assert response["status"]["code"] == 403
    assert "invalid_inject_annotation_at_workload" in response["status"]["message"]
    assert "allowed: enabled, disabled" in response["status"]["message"]


def test_notices_are_warnings_to_whoever_asked() -> None:
    pod = {
        "metadata": {},
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]},
    }
    _, response = answered(body(pod))
    assert response["warnings"][0].startswith("udp_ports_enabled")
    assert all(len(warning) <= 256 for warning in response["warnings"])


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "", "version": "v1", "kind": "Service"}},
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"object": None},
    ],
)
def test_what_is_no_new_pod_is_let_through(changes: dict[str, Any]) -> None:
    decision, response = answered(body(**changes))
    assert isinstance(decision, Skip)
    assert decision.reason == "unsupported_resource"
    assert response["allowed"] is True


@pytest.mark.parametrize("bad", [b"", b"{}", b"[]", b'{"request": {}}', b'{"request": null}', b"\xff"])
def test_what_is_no_review_is_refused(bad: bytes) -> None:
    with pytest.raises(ReviewError):
        read_review(bad)


def owned(kind: str, name: str, template: str = "", controller: bool = True) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": controller}
    pod_labels = {"pod-template-hash": template} if template else {}
    return {"metadata": {"labels": pod_labels, "ownerReferences": [reference]}}


@pytest.mark.parametrize(
    ("pod", "owner"),
    [
        (owned("ReplicaSet", "web-5d4f", "5d4f"), Owner("deployment", "web")),
        (owned("ReplicaSet", "web", ""), Owner("replicaset", "web")),
        (owned("StatefulSet", "db"), Owner("statefulset", "db")),
        (owned("Job", "nightly-1"), Owner("job", "nightly-1")),
        (owned("Workflow", "w"), None),
        (owned("ReplicaSet", "web-5d4f", "5d4f", controller=False), None),
        ({"metadata": {}}, None),
        ({}, None),
    ],
)
def test_the_owner_is_the_workload_that_users_know(pod: dict[str, Any], owner: Owner | None) -> None:
    assert owner_of(pod) == owner
