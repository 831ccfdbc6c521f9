"""The issuer kept alive: does I/O. Looks at it every minute, and where `decide` says so has the anchor sign another.

The anchor's key is read only for the moment of a renewal, and nothing here logs or stores more than certificates.
"""

import asyncio
import datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from components.keeper.decide import State, Verdict, decide
from components.kube.client import CONFIG_MAPS, SECRETS, Kube, KubeError
from components.trust import authority, objects
from components.trust.authority import AuthorityError
from proxy.api import labels

Json = dict[str, Any]
CHECK_SECONDS: Final = 60.0
"""A renewal is due months before an end, so nobody waits for this."""
RETRY_SECONDS: Final = 5.0
STALE_SECONDS: Final = 600.0
"""Not ready after this long without a look at the issuer: the API server does not answer, or refuses."""

STATE = Gauge("tulle_keeper_issuer_state", "1 for the state the issuer was last found in", ["state"])
RENEWALS = Counter("tulle_keeper_renewals_total", "Issuers made, or not", ["result"])


class Renewal:
    """One mesh's issuer."""

    def __init__(
        self,
        kube: Kube,
        mesh_namespace: str,
        trust_namespace: str,
        trust_domain: str,
        lifetime: datetime.timedelta,
    ) -> None:
        self._kube = kube
        self._mesh = mesh_namespace
        self._trust = trust_namespace
        self._domain = trust_domain
        self._lifetime = lifetime
        self._log = structlog.get_logger()
        self._said: State | None = None
        self._looked: float | None = None

    def waiting_for(self) -> str | None:
        """What readiness waits for; None when the issuer was looked at lately."""
        if self._looked is None:
            return "a first look at the issuer"
        silent = asyncio.get_running_loop().time() - self._looked
        return None if silent < STALE_SECONDS else f"an answer of the API server, for {silent:.0f} s"

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.look(datetime.datetime.now(datetime.UTC))
                self._looked = asyncio.get_running_loop().time()
            except (KubeError, AuthorityError) as error:
                RENEWALS.labels("failed").inc()
                self._log.error("issuer_not_kept", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await asyncio.sleep(CHECK_SECONDS)

    async def look(self, now: datetime.datetime) -> Verdict:
        """Look once, and renew what is due; raises KubeError and AuthorityError."""
        secret = await self._kube.find(SECRETS, Json, labels.ISSUER_SECRET, self._mesh)
        bundle = await self._kube.get(CONFIG_MAPS, Json, labels.BUNDLE_CONFIG_MAP, self._mesh)
        pem = str((bundle.get("data") or {}).get(labels.BUNDLE_KEY, ""))
        verdict = decide(objects.text(secret, "tls.crt"), pem, self._lifetime, now)
        self._tell(verdict)
        if verdict.renews and secret is not None:
            await self._renew(secret, verdict, now)
        return verdict

    async def _renew(self, secret: Json, verdict: Verdict, now: datetime.datetime) -> None:
        name = objects.signed_with(secret)
        anchor = objects.pair_of(await self._kube.get(SECRETS, Json, name, self._trust))
        held = authority.identity_of(authority.load_certificate(anchor.certificate, "the anchor"))
        if held != verdict.anchor:
            # A deployment is changing the anchor: its next step gives the issuer, and us, another one.
            self._log.info("issuer_left_alone", why=f"Secret {name} holds another anchor than signed it")
            return
        made = authority.make_issuer(anchor, self._mesh, self._domain, now, self._lifetime)
        body = objects.issuer_secret(self._mesh, made, anchor.certificate, name)
        # With the version that was read: a deployment that writes at the same time wins, and is looked at next time.
        body["metadata"]["resourceVersion"] = secret["metadata"]["resourceVersion"]
        body["metadata"]["labels"] = {**(secret["metadata"].get("labels") or {}), **body["metadata"]["labels"]}
        await self._kube.replace(SECRETS, body, labels.ISSUER_SECRET, self._mesh)
        RENEWALS.labels("made").inc()
        self._log.info("issuer_renewed", not_after=authority.not_after(made.certificate), why=verdict.state.value)

    def _tell(self, verdict: Verdict) -> None:
        for state in State:
            STATE.labels(state.name.lower()).set(state is verdict.state)
        if verdict.state is not self._said:
            self._said = verdict.state
            due = verdict.due.isoformat() if verdict.due else None
            self._log.info("issuer_looked_at", state=verdict.state.name.lower(), due=due, note=verdict.state.value)
