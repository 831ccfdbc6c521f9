"""Asking the API server about tokens: does I/O. What its answer means is read in `claims`."""

import asyncio
from typing import Final

import msgspec

from components.identity.claims import Claims, TokenReview, read_review, review_request
from components.kube.client import TOKEN_REVIEWS, Kube

AT_ONCE: Final = 32
"""TokenReviews under way at one moment: a thousand proxies that start together must not flood the API server."""


class Validator:
    """Validates tokens for one audience."""

    def __init__(self, kube: Kube, audience: str) -> None:
        self._kube = kube
        self._audience = audience
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def validate(self, token: bytes) -> Claims:
        """Who the token is of; raises TokenError, or KubeError where the API server does not answer.

        The API server refuses a token whose pod is gone or is another one of the same name, so the pod need not be
        looked up.
        """
        request = review_request(token, self._audience)
        async with self._slots:
            answer = await self._kube.request("POST", TOKEN_REVIEWS.path(), body=request, repeatable=True)
        return read_review(msgspec.json.decode(answer, type=TokenReview), self._audience)
