"""Admission reviews as values: pure. What the API server asks and what it is answered; the decision itself is in
`decide`.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from components.injector.config import InjectorConfig
from components.injector.decide import UNSUPPORTED, Decision, Inject, Namespace, Refuse, Skip, decide
from components.injector.jsonpatch import json_patch
from components.injector.patch import Json, Owner

TEMPLATE_HASH: Final = "pod-template-hash"
OWNER_KINDS: Final = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController"})


class ReviewError(ValueError):
    """The request is not an admission review that can be answered."""


class GroupKind(msgspec.Struct, frozen=True):
    """What an object is."""

    group: str = ""
    version: str = ""
    kind: str = ""


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """The question."""

    uid: str
    kind: GroupKind = GroupKind()
    operation: str = ""
    namespace: str = ""
    name: str = ""
    dry_run: bool | None = None
    object: Json | None = None


class Review(msgspec.Struct, frozen=True):
    """The envelope."""

    request: Request | None = None


def read_review(body: bytes) -> Request:
    """The question of an AdmissionReview; raises ReviewError."""
    try:
        review = msgspec.json.decode(body, type=Review)
    except msgspec.MsgspecError as error:
        raise ReviewError(f"not an AdmissionReview: {error}") from error
    if review.request is None:
        raise ReviewError("an AdmissionReview without a request")
    return review.request


def consider(
    request: Request, namespace: Namespace, config: InjectorConfig, *, native_supported: bool
) -> tuple[Decision, Json]:
    """Decide about the object of a request, and write the answer."""
    pod = request.object or {}
    if (request.kind.group, request.kind.kind) != ("", "Pod") or request.operation != "CREATE":
        what = f"{request.operation} of {request.kind.kind or 'nothing'}"
        skipped = Skip(UNSUPPORTED, f"{what}: only the creation of Pods is injected")
        return skipped, answer(request, skipped, pod, config)
    decision = decide(pod, namespace, config, native_supported=native_supported, owner=owner_of(pod))
    return decision, answer(request, decision, pod, config)


def answer(request: Request, decision: Decision, pod: Mapping[str, Any], config: InjectorConfig) -> Json:
    """The AdmissionReview that says what was decided."""
    response: Json = {"uid": request.uid, "allowed": not isinstance(decision, Refuse)}
    if isinstance(decision, Refuse):
        response["status"] = {
            "code": 403,
            "reason": "Forbidden",
            "message": f"not injected ({decision.reason}): {decision.message}",
        }
    elif isinstance(decision, Inject):
        operations = json_patch(pod, decision.apply(pod, config))
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(operations)).decode()
        response["auditAnnotations"] = {"injection": "native" if decision.native else "classic"}
        # The API server cuts warnings at 256 characters.
        warnings = [f"{notice.reason}: {notice.message}"[:250] for notice in decision.notices]
        if warnings:
            response["warnings"] = warnings
    else:
        response["auditAnnotations"] = {"injection": decision.reason}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def controller_of(pod: Mapping[str, Any]) -> Json | None:
    """The owner reference of the workload that made a pod."""
    references = (pod.get("metadata") or {}).get("ownerReferences") or []
    return next((each for each in references if each.get("controller")), None)


def owner_of(pod: Mapping[str, Any]) -> Owner | None:
    """The workload that a user knows: the Deployment rather than its ReplicaSet, as names tell."""
    reference = controller_of(pod)
    if reference is None or reference.get("kind") not in OWNER_KINDS:
        return None
    kind, name = str(reference["kind"]), str(reference.get("name") or "")
    template = ((pod.get("metadata") or {}).get("labels") or {}).get(TEMPLATE_HASH)
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return Owner("deployment", name.removesuffix(f"-{template}"))
    return Owner(kind.lower(), name)
