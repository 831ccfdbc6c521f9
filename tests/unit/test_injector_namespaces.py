"""Namespaces: what is kept of each, and one that is too new to be known is asked for."""

import asyncio

import msgspec
import pytest

from components.injector.decide import Namespace
from components.injector.namespaces import NamespaceObject, Namespaces, known
from components.kube.client import KubeError
from tests.kit.fake_api import FakeApi


def test_only_what_injection_reads_is_kept() -> None:
    raw = {
        "metadata": {
            "name": "demo",
            "labels": {"tulle.io/meshed": "enabled", "kubernetes.io/metadata.name": "demo"},
            "annotations": {
                "linkerd.io/inject": "enabled",
                "config.linkerd.io/opaque-ports": "25",
                "config.alpha.linkerd.io/proxy-enable-native-sidecar": "true",
                "kubectl.kubernetes.io/last-applied-configuration": "x" * 1_000,
            },
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }
    }
    found = known(msgspec.convert(raw, NamespaceObject))
    assert found.namespace == Namespace(
        "demo",
        {
            "linkerd.io/inject": "enabled",
            "config.linkerd.io/opaque-ports": "25",
            "config.alpha.linkerd.io/proxy-enable-native-sidecar": "true",
        },
        {"tulle.io/meshed": "enabled"},
    )
    assert found.leaving


async def test_a_namespace_too_new_to_be_known_is_asked_for() -> None:
    api = FakeApi()
    namespaces = Namespaces(api.kube(), lambda: ())
    task = asyncio.ensure_future(namespaces.run())
    await namespaces.synced.wait()
    api.silently("namespaces", {"metadata": {"name": "new", "annotations": {"linkerd.io/inject": "enabled"}}})
    assert (await namespaces.get("new")).annotations == {"linkerd.io/inject": "enabled"}
    with pytest.raises(KubeError):
        await namespaces.get("none")
    task.cancel()
