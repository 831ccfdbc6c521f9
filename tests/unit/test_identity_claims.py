"""Tokens: what a review has to say before a token proves anything."""

from typing import Any

import msgspec
import pytest

from components.identity.claims import (
    MAX_TOKEN,
    POD_NAME,
    POD_UID,
    Claims,
    TokenError,
    TokenReview,
    read_review,
    review_request,
)

AUDIENCE = "identity.tulle.cluster.local"


def review(**changes: Any) -> TokenReview:
    user = {
        "username": "system:serviceaccount:demo:web",
        "extra": {POD_NAME: ["web-1"], POD_UID: ["uid-1"]},
    } | changes.pop("user", {})
    status = {"authenticated": True, "audiences": [AUDIENCE], "user": user, **changes}
    return msgspec.convert({"status": status}, TokenReview)


def test_a_good_review_gives_account_and_pod() -> None:
    claims = read_review(review(), AUDIENCE)
    assert claims == Claims("web", "demo", "web-1", "uid-1")
    assert claims.identity("tulle", "cluster.local").dns_name == "web.demo.serviceaccount.identity.tulle.cluster.local"


def test_an_account_may_have_dots() -> None:
    claims = read_review(review(user={"username": "system:serviceaccount:demo:web.v1"}), AUDIENCE)
    assert claims.service_account == "web.v1"


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"authenticated": False, "error": "token expired"}, "rejected", "token expired"),
        ({"authenticated": False}, "rejected", "not authenticated"),
        ({"audiences": ["vault"]}, "audience", "vault"),
        ({"audiences": []}, "audience", AUDIENCE),
        ({"audiences": None}, "audience", AUDIENCE),
        ({"user": {"username": "admin"}}, "not_a_service_account", "admin"),
        ({"user": {"username": "system:serviceaccount:demo"}}, "not_a_service_account", "demo"),
        ({"user": {"username": "system:serviceaccount::web"}}, "not_a_service_account", "web"),
        ({"user": {"extra": None}}, "not_bound", "bound to no pod"),
        ({"user": {"extra": {POD_NAME: ["web-1"]}}}, "not_bound", "bound to no pod"),
        ({"user": {"extra": {POD_NAME: ["web-1"], POD_UID: []}}}, "not_bound", "bound to no pod"),
    ],
)
def test_anything_less_proves_nothing(changes: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(TokenError, match=words) as caught:
        read_review(review(**changes), AUDIENCE)
    assert caught.value.reason == reason


def test_an_account_whose_identity_no_certificate_can_carry_is_refused() -> None:
    with pytest.raises(TokenError) as caught:
        Claims("w" * 253, "demo", "p", "u").identity("tulle", "cluster.local")
    assert caught.value.reason == "name"


def test_a_review_asks_for_our_audience_only() -> None:
    assert review_request(b" a.b.c\n", AUDIENCE)["spec"] == {"token": "a.b.c", "audiences": [AUDIENCE]}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"", "missing"),
        (b"abc", "malformed"),
        (b"a.b.c.d", "malformed"),
        (b"a.\xff.c", "malformed"),
        (b"x" * (MAX_TOKEN + 1), "too_long"),
    ],
)
def test_what_cannot_be_a_token_is_not_sent_on(token: bytes, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        review_request(token, AUDIENCE)
    assert caught.value.reason == reason
