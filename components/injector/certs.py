"""The webhook's certificate in the cluster: does I/O. Kept in a Secret, renewed by the leader, loaded live by every
replica, and made known to the API server as `caBundle` of both webhook configurations. When something is due is decided
in `webhook_ca`.
"""

import asyncio
import base64
import datetime
import os
import ssl
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from components.injector.webhook_ca import Material, MaterialError, due, expiry, make_material, renew_leaf
from components.kube.client import MUTATING_WEBHOOKS, SECRETS, Kube, KubeError
from components.kube.reflector import Reflector

SECRET: Final = "tulle-injector-tls"  # noqa: S105 - the name of a Secret, not one
MANAGER: Final = "tulle-injector"
CHECK_SECONDS: Final = 60.0
"""How often the leader looks at remaining lives; between, it is woken by every change."""
RETRY_SECONDS: Final = 1.0
"""Two changes in one second are one check, so that a fight over `caBundle` with another writer is bounded."""

EXPIRY = Gauge("tulle_injector_webhook_expiry_timestamp_seconds", "When the webhook's certificate expires (Unix time)")
RENEWALS = Counter("tulle_injector_webhook_renewals_total", "Webhook certificates made", ["what"])


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """Metadata of the objects below."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""


class Secret(msgspec.Struct, frozen=True):
    """A Secret."""

    metadata: Meta
    data: dict[str, str] | None = None


class ClientConfig(msgspec.Struct, frozen=True, rename="camel"):
    """How a webhook is called."""

    ca_bundle: str = ""


class Webhook(msgspec.Struct, frozen=True, rename="camel"):
    """One webhook of a configuration."""

    name: str
    client_config: ClientConfig = ClientConfig()


class WebhookConfiguration(msgspec.Struct, frozen=True):
    """A MutatingWebhookConfiguration."""

    metadata: Meta
    webhooks: list[Webhook] | None = None


def server_context() -> ssl.SSLContext:
    """The webhook's TLS; certificates are loaded into it while it is in use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


def webhook_reflector(
    kube: Kube,
    name: str,
    handler: Callable[[WebhookConfiguration | None, WebhookConfiguration | None], None],
) -> Reflector[str, WebhookConfiguration]:
    """A copy of one MutatingWebhookConfiguration."""
    return Reflector(
        kube,
        MUTATING_WEBHOOKS,
        WebhookConfiguration,
        lambda each: each.metadata.name,
        handler,
        selectors={"fieldSelector": f"metadata.name={name}"},
    )


class WebhookCertificates:
    """The certificate in use, and its upkeep."""

    def __init__(
        self,
        kube: Kube,
        mesh_namespace: str,
        names: tuple[str, ...],
        configurations: tuple[str, ...],
        context: ssl.SSLContext,
        secret: str = SECRET,
    ) -> None:
        self._kube = kube
        self._secret = secret
        self._namespace = mesh_namespace
        self._names = names
        self._context = context
        self._log = structlog.get_logger()
        self._changed = asyncio.Event()
        self.loaded = asyncio.Event()
        self._secrets: Reflector[str, Secret] = Reflector(
            kube,
            SECRETS,
            Secret,
            lambda each: each.metadata.name,
            self._on_secret,
            namespace=mesh_namespace,
            selectors={"fieldSelector": f"metadata.name={secret}"},
        )
        self._webhooks: list[Reflector[str, WebhookConfiguration]] = [
            webhook_reflector(kube, name, self._on_webhook) for name in configurations
        ]

    async def run(self) -> None:
        """Follow the Secret and the configurations, for ever; make the Secret if nobody has yet."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run())
            for reflector in self._webhooks:
                group.create_task(reflector.run())
            await self._secrets.synced.wait()
            while not self.loaded.is_set():
                if self._secret not in self._secrets.objects:
                    await self._bootstrap()
                await asyncio.sleep(0.2)

    async def lead(self) -> None:
        """The leader's work: renew what is due and keep `caBundle` right, for ever."""
        while True:
            self._changed.clear()
            try:
                await self._renew()
                await self._publish()
            except KubeError as error:
                self._log.warning("webhook_certificate_failed", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _bootstrap(self) -> None:
        """The first replica makes the Secret, leader or not: nothing can be admitted before."""
        material = make_material(self._names, _now())
        try:
            await self._kube.create(SECRETS, _body(self._secret, material, self._namespace, None), self._namespace)
        except KubeError as error:
            if not error.conflict:
                self._log.warning("webhook_secret_failed", error=str(error))
            return
        RENEWALS.labels("ca").inc()
        self._log.info("webhook_secret_made", secret=self._secret)

    async def _renew(self) -> None:
        secret = self._secrets.objects.get(self._secret)
        if secret is None:
            if self._secrets.synced.is_set():
                await self._bootstrap()
            return
        now = _now()
        try:
            current: Material | None = _material(secret)
            what = due(_material(secret), self._names, now)
        except MaterialError as error:
            self._log.error("webhook_secret_unusable", secret=self._secret, error=str(error))
            current, what = None, "ca"
        if what is None:
            return
        if what == "leaf" and current is not None:
            material = renew_leaf(current, self._names, now)
        else:
            material = make_material(self._names, now, current)
            # The API server must know the new CA before any replica shows a certificate of it.
            await self._write_bundle(material.ca_bundle)
        version = secret.metadata.resource_version
        await self._kube.replace(
            SECRETS, _body(self._secret, material, self._namespace, version), self._secret, self._namespace
        )
        RENEWALS.labels(what).inc()
        self._log.info("webhook_certificate_renewed", what=what)

    async def _publish(self) -> None:
        secret = self._secrets.objects.get(self._secret)
        if secret is None:
            return
        try:
            await self._write_bundle(_material(secret).ca_bundle)
        except MaterialError:
            return  # Said in _renew, which has just made a new one.

    async def _write_bundle(self, bundle: bytes) -> None:
        wanted = base64.b64encode(bundle).decode()
        for reflector in self._webhooks:
            for name, configuration in reflector.objects.items():
                operations: list[dict[str, Any]] = []
                for number, webhook in enumerate(configuration.webhooks or ()):
                    if webhook.client_config.ca_bundle != wanted:
                        path = f"/webhooks/{number}"
                        # The test keeps a configuration that was reordered meanwhile from being written at the wrong
                        # place.
                        operations.append({"op": "test", "path": f"{path}/name", "value": webhook.name})
                        operations.append({"op": "add", "path": f"{path}/clientConfig/caBundle", "value": wanted})
                if operations:
                    await self._kube.json_patch(MUTATING_WEBHOOKS, operations, name, manager=MANAGER)
                    self._log.info("ca_bundle_written", configuration=name)

    def _on_secret(self, _: Secret | None, new: Secret | None) -> None:
        self._changed.set()
        if new is None:
            self._log.error("webhook_secret_deleted", secret=self._secret, note="the certificate in use is kept")
            return
        try:
            material = _material(new)
            due(material, self._names, _now())
            load(self._context, material)
        except (MaterialError, ssl.SSLError) as error:
            self._log.error(
                "webhook_secret_unusable", secret=self._secret, error=str(error), note="the one in use is kept"
            )
            return
        EXPIRY.set(expiry(material).timestamp())
        self._log.info("webhook_certificate_loaded", not_after=expiry(material).isoformat())
        self.loaded.set()

    def _on_webhook(self, _: WebhookConfiguration | None, __: WebhookConfiguration | None) -> None:
        self._changed.set()


def load(context: ssl.SSLContext, material: Material) -> None:
    """Give a context a new certificate; connections that are open keep theirs. The key touches memory only."""
    descriptor = os.memfd_create("tulle-injector", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(material.certificate + material.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _material(secret: Secret) -> Material:
    try:
        data = {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}
    except ValueError as error:
        raise MaterialError(f"not base64: {error}") from None
    return Material.from_data(data)


def _body(name: str, material: Material, namespace: str, version: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER, "app.kubernetes.io/part-of": "tulle"},
            **({"resourceVersion": version} if version else {}),
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in material.as_data().items()},
    }


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
