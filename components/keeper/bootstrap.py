"""Make anchor, issuer and bundle where they are absent: does I/O, once. What is there is never touched.

For clusters to which no deployer goes (`tulle render | kubectl apply -f -`). Every object is made by a plain create, so
that two runs at the same time end with the material of one of them.
"""

import datetime
from typing import Any

import structlog

from components.kube.client import CONFIG_MAPS, SECRETS, Kind, Kube, KubeError
from components.serving import StartupError
from components.trust import authority, objects
from components.trust.authority import AuthorityError
from proxy.api import labels

Json = dict[str, Any]


class Bootstrap:
    """The trust material of one mesh."""

    def __init__(
        self,
        kube: Kube,
        mesh_namespace: str,
        trust_namespace: str,
        trust_domain: str,
        lifetime: datetime.timedelta = authority.ISSUER_LIFETIME,
    ) -> None:
        self._kube = kube
        self._mesh = mesh_namespace
        self._trust = trust_namespace
        self._domain = trust_domain
        self._lifetime = lifetime
        self._log = structlog.get_logger()

    async def run(self, further: str, now: datetime.datetime) -> None:
        """All three; raises StartupError for what is there and does not fit."""
        try:
            anchor = objects.pair_of(await self._anchor(now))
            authority.check_current(authority.load_certificate(anchor.certificate, "the anchor"), "the anchor", now)
            issuer = await self._kube.find(SECRETS, Json, labels.ISSUER_SECRET, self._mesh)
            if issuer is None:
                made = authority.make_issuer(anchor, self._mesh, self._domain, now, self._lifetime)
                await self._ensure(SECRETS, objects.issuer_secret(self._mesh, made, anchor.certificate), self._mesh)
            if further.strip():
                authority.load_bundle(further)
        except AuthorityError as error:
            raise StartupError(str(error)) from None
        bundle = anchor.certificate + (f"{further.strip()}\n" if further.strip() else "")
        await self._ensure(CONFIG_MAPS, objects.bundle_map(self._mesh, bundle), self._mesh)

    async def _anchor(self, now: datetime.datetime) -> Json:
        found = await self._kube.find(SECRETS, Json, labels.ANCHOR_SECRET, self._trust)
        if found is not None:
            return found
        made = authority.make_anchor(self._mesh, self._domain, now)
        return await self._ensure(SECRETS, objects.anchor_secret(self._trust, labels.ANCHOR_SECRET, made), self._trust)

    async def _ensure(self, kind: Kind, body: Json, namespace: str) -> Json:
        """The object made now, or the one that somebody else made first."""
        name = body["metadata"]["name"]
        try:
            made = await self._kube.create(kind, body, namespace)
        except KubeError as error:
            if not error.conflict:
                raise
            return await self._kube.get(kind, Json, name, namespace)
        self._log.info("made", what=f"{namespace}/{name}")
        return made
