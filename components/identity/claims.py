"""What a reviewed service-account token proves: pure. The API server's TokenReview in, a pod and its service account
out.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.api.names import InvalidNameError, WorkloadIdentity, workload_identity

MAX_TOKEN: Final = 16 * 1024
"""Bounds what is sent on to the API server for a caller; a projected token is about 1 KB."""
USERNAME: Final = "system:serviceaccount:"
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"


class TokenError(ValueError):
    """The token proves nothing (UNAUTHENTICATED); `reason` is a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReviewUser(msgspec.Struct, frozen=True):
    """Who the token is of."""

    username: str = ""
    extra: dict[str, list[str]] | None = None


class ReviewStatus(msgspec.Struct, frozen=True):
    """The API server's judgement."""

    authenticated: bool = False
    audiences: list[str] | None = None
    error: str = ""
    user: ReviewUser = ReviewUser()


class TokenReview(msgspec.Struct, frozen=True):
    """A TokenReview's answer."""

    status: ReviewStatus = ReviewStatus()


@dataclass(frozen=True, slots=True)
class Claims:
    """A token that was found good: a service account, and the pod that the token was made for."""

    service_account: str
    namespace: str
    pod: str
    pod_uid: str

    def identity(self, mesh_namespace: str, trust_domain: str) -> WorkloadIdentity:
        """The mesh identity this proves; raises TokenError for a name no certificate can carry."""
        try:
            return workload_identity(self.service_account, self.namespace, mesh_namespace, trust_domain)
        except InvalidNameError as error:
            raise TokenError("name", str(error)) from error


def review_request(token: bytes, audience: str) -> dict[str, object]:
    """The TokenReview to ask for; raises TokenError for what cannot be a token."""
    if not token:
        raise TokenError("missing", "no service-account token was sent")
    if len(token) > MAX_TOKEN:
        raise TokenError("too_long", f"the token is {len(token)} bytes long; at most {MAX_TOKEN} are read")
    try:
        text = token.decode("ascii").strip()
    except UnicodeDecodeError:
        raise TokenError("malformed", "the token is not a JSON Web Token") from None
    if text.count(".") != 2:
        raise TokenError("malformed", "the token is not a JSON Web Token")
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": text, "audiences": [audience]},
    }


def read_review(review: TokenReview, audience: str) -> Claims:
    """What the review says; raises TokenError."""
    status = review.status
    if not status.authenticated:
        # The API server's own words: expired, another audience, a deleted account or pod.
        raise TokenError("rejected", f"the API server refuses the token: {status.error or 'not authenticated'}")
    # An API server that knows nothing of audiences leaves the list empty and has not checked them: then nothing is
    # proven.
    if audience not in (status.audiences or ()):
        raise TokenError("audience", f"the token is for {status.audiences or 'the API server'}, not for {audience!r}")
    username = status.user.username
    namespace, _, account = username.removeprefix(USERNAME).partition(":")
    if not username.startswith(USERNAME) or not namespace or not account:
        raise TokenError("not_a_service_account", f"the token is of {username!r}, not of a service account")
    extra = status.user.extra or {}
    pod, uid = extra.get(POD_NAME), extra.get(POD_UID)
    if not pod or not uid or not pod[0] or not uid[0]:
        raise TokenError("not_bound", f"the token of {username!r} is bound to no pod; proxies use a projected token")
    return Claims(account, namespace, pod[0], uid[0])
