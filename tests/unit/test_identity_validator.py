"""Asking the API server: one review per token, for our audience, and its refusals passed on as they are."""

import json
from typing import Any

import httpx2
import pytest

from components.identity.claims import POD_NAME, POD_UID, Claims, TokenError
from components.identity.validator import Validator
from components.kube.client import Kube, KubeError

AUDIENCE = "identity.tulle.cluster.local"


def validator(answer: Any, asked: list[dict[str, Any]] | None = None) -> Validator:
    def serve(request: httpx2.Request) -> httpx2.Response:
        if asked is not None:
            asked.append(json.loads(request.content))
        return httpx2.Response(201, json=answer) if isinstance(answer, dict) else httpx2.Response(answer, json={})

    return Validator(
        Kube(httpx2.AsyncClient(transport=httpx2.MockTransport(serve), base_url="http://fake"), ""), AUDIENCE
    )


async def test_a_token_is_reviewed_for_our_audience() -> None:
    asked: list[dict[str, Any]] = []
    user = {"username": "system:serviceaccount:demo:web", "extra": {POD_NAME: ["p"], POD_UID: ["u"]}}
    answer = {"status": {"authenticated": True, "audiences": [AUDIENCE], "user": user}}
    assert await validator(answer, asked).validate(b"a.b.c") == Claims("web", "demo", "p", "u")
    assert asked == [
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "a.b.c", "audiences": [AUDIENCE]},
        }
    ]


async def test_a_refusal_is_a_token_error_and_an_outage_is_not() -> None:
    with pytest.raises(TokenError, match="expired"):
        await validator({"status": {"authenticated": False, "error": "expired"}}).validate(b"a.b.c")
    with pytest.raises(KubeError):
        await validator(503).validate(b"a.b.c")
