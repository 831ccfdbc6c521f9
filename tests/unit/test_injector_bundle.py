"""The trust bundle: in every meshed namespace, equal to its source, gone with the mesh."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from components.injector import bundle as module
from components.injector.bundle import TrustBundle
from components.injector.namespaces import Namespaces
from tests.kit.fake_api import FakeApi, eventually

NAME = "tulle-trust-bundle"
ENABLED = {"linkerd.io/inject": "enabled"}


class Mesh:
    """A cluster with a source, and the injector's part that copies it."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.owner: tuple[str, str] | None = ("tulle-injector", "uid-webhook")
        kube = self.api.kube()
        self.namespaces = Namespaces(kube, lambda: ("kube-system", "tulle"))
        self.bundle = TrustBundle(kube, "tulle", self.namespaces, lambda: self.owner)
        self.namespaces.on_change = self.bundle.wake

    def namespace(self, name: str, annotations: dict[str, str] | None = None, **more: Any) -> None:
        self.api.put("namespaces", {"metadata": {"name": name, "annotations": annotations, **more}})

    def source(self, text: str) -> None:
        self.put("tulle", text)

    def put(self, namespace: str, text: str) -> None:
        self.api.put("configmaps", {"metadata": {"name": NAME}, "data": {"ca-bundle.crt": text}}, namespace)

    def copy(self, namespace: str) -> str | None:
        found = self.api.get("configmaps", NAME, namespace)
        return found["data"]["ca-bundle.crt"] if found else None

    @contextlib.asynccontextmanager
    async def running(self, leading: bool = True) -> AsyncIterator["Mesh"]:
        tasks = [asyncio.ensure_future(self.namespaces.run()), asyncio.ensure_future(self.bundle.run())]
        await asyncio.wait_for(asyncio.gather(self.namespaces.synced.wait(), self.bundle.synced.wait()), 5)
        if leading:
            tasks.append(asyncio.ensure_future(self.bundle.lead()))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Mesh:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)
    found = Mesh()
    found.namespace("tulle")
    found.namespace("kube-system", ENABLED)
    found.source("anchor 1")
    return found


async def test_meshed_namespaces_get_a_copy_and_others_do_not(mesh: Mesh) -> None:
    mesh.namespace("demo", ENABLED)
    mesh.namespace("labelled", None, labels={"tulle.io/meshed": "enabled"})
    mesh.namespace("plain")
    async with mesh.running():
        await eventually("copies", lambda: mesh.copy("demo") == mesh.copy("labelled") == "anchor 1")
        mesh.namespace("later", ENABLED)
        await eventually("a copy", lambda: mesh.copy("later") == "anchor 1")
        mesh.namespace("plain", ENABLED)
        await eventually("a copy", lambda: mesh.copy("plain") == "anchor 1")
        assert mesh.copy("kube-system") is None


async def test_a_new_anchor_reaches_every_copy(mesh: Mesh) -> None:
    mesh.namespace("demo", ENABLED)
    async with mesh.running():
        await eventually("a copy", lambda: mesh.copy("demo") == "anchor 1")
        mesh.source("anchor 1\nanchor 2")
        await eventually("both", lambda: mesh.copy("demo") == "anchor 1\nanchor 2")


async def test_a_copy_that_is_changed_or_deleted_is_put_right(mesh: Mesh) -> None:
    mesh.namespace("demo", ENABLED)
    async with mesh.running():
        await eventually("a copy", lambda: mesh.copy("demo") == "anchor 1")
        found = mesh.api.get("configmaps", NAME, "demo")
        assert found is not None
        mesh.api.put("configmaps", {**found, "data": {"ca-bundle.crt": "forged"}}, "demo")
        await eventually("put right", lambda: mesh.copy("demo") == "anchor 1")
        mesh.api.remove("configmaps", NAME, "demo")
        await eventually("back", lambda: mesh.copy("demo") == "anchor 1")
        assert mesh.copy("tulle") == "anchor 1", "the source is never written"


async def test_a_namespace_no_longer_meshed_keeps_its_copy_up_to_date(mesh: Mesh) -> None:
    mesh.namespace("demo", ENABLED)
    async with mesh.running():
        await eventually("a copy", lambda: mesh.copy("demo") == "anchor 1")
        mesh.namespace("demo")
        mesh.source("anchor 2")
        await eventually("up to date", lambda: mesh.copy("demo") == "anchor 2")


async def test_copies_belong_to_the_webhook_and_none_are_made_without_one(mesh: Mesh) -> None:
    mesh.namespace("demo", ENABLED)
    mesh.owner = None
    async with mesh.running():
        await asyncio.sleep(0.1)
        assert mesh.copy("demo") is None
        mesh.owner = ("tulle-injector", "uid-webhook")
        await eventually("a copy", lambda: mesh.copy("demo"))
    found = mesh.api.get("configmaps", NAME, "demo")
    assert found is not None
    assert found["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "name": "tulle-injector",
            "uid": "uid-webhook",
        }
    ]


async def test_without_a_source_nothing_is_written(mesh: Mesh) -> None:
    mesh.api.remove("configmaps", NAME, "tulle")
    mesh.namespace("demo", ENABLED)
    async with mesh.running():
        await mesh.bundle.ensure("demo")
        assert mesh.copy("demo") is None
        mesh.source("anchor 1")
        await eventually("a copy", lambda: mesh.copy("demo") == "anchor 1")


async def test_any_replica_brings_the_first_copy_before_the_pod_needs_it(mesh: Mesh) -> None:
    mesh.namespace("plain")
    async with mesh.running(leading=False):
        await mesh.bundle.ensure("plain")
        assert mesh.copy("plain") == "anchor 1"
        await eventually(
            "known", lambda: "known" if mesh.bundle._is_current("plain", {"ca-bundle.crt": "anchor 1"}) else ""
        )
        before = len(mesh.api.requests)
        await mesh.bundle.ensure("plain")
        assert len(mesh.api.requests) == before, "what is known to be there is not written again"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"app.kubernetes.io/managed-by": "tulle"},
        {"app.kubernetes.io/managed-by": "tulle-injector", "linkerd.io/control-plane-ns": "other-mesh"},
    ],
)
async def test_what_is_not_this_meshs_copy_is_never_written(mesh: Mesh, given: dict[str, str]) -> None:
    """A second mesh's injector once replaced the source of the first: nobody trusted anybody any more."""
    mesh.namespace("other-mesh", ENABLED)
    theirs = {"metadata": {"name": NAME, "labels": given}, "data": {"ca-bundle.crt": "theirs"}}
    mesh.api.put("configmaps", theirs, "other-mesh")
    mesh.namespace("demo", ENABLED)
    async with mesh.running():
        await eventually("a copy", lambda: mesh.copy("demo") == "anchor 1")
        await mesh.bundle.ensure("other-mesh")
        assert mesh.copy("other-mesh") == "theirs"


async def test_two_replicas_that_bring_it_together_do_not_fail(mesh: Mesh) -> None:
    mesh.namespace("plain")
    async with mesh.running(leading=False):
        await asyncio.gather(*(mesh.bundle.ensure("plain") for _ in range(5)))
        assert mesh.copy("plain") == "anchor 1"


async def test_a_namespace_that_is_being_deleted_is_left_alone(mesh: Mesh) -> None:
    mesh.namespace("ending", ENABLED, deletionTimestamp="2026-01-01T00:00:00Z")
    async with mesh.running():
        await asyncio.sleep(0.1)
        assert mesh.copy("ending") is None


async def test_one_namespace_that_fails_does_not_stop_the_others(mesh: Mesh) -> None:
    for number in range(12):
        mesh.namespace(f"n{number:02}", ENABLED)
    async with mesh.running(leading=False):
        mesh.api.fail = [500]
        lead = asyncio.ensure_future(mesh.bundle.lead())
        await eventually("all", lambda: all(mesh.copy(f"n{number:02}") for number in range(12)))
        lead.cancel()
