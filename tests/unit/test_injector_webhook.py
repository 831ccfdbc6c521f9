"""The webhook as the API server calls it: answers, bundles brought first, owners told, dry runs without a trace."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from components.injector import webhook as module
from components.injector.bundle import TrustBundle
from components.injector.config import InjectorConfig, ProxySettings, encode_config
from components.injector.configuration import ConfigFile
from components.injector.namespaces import Namespaces
from components.injector.owners import OwnerEvents
from components.injector.webhook import ServerVersion, Webhook
from components.kube.events import Recorder
from components.serving import StartupError
from tests.kit.fake_api import FakeApi, eventually
from tests.unit.test_injector_admission import POD, body

BUNDLE = "tulle-trust-bundle"
CONFIG = InjectorConfig(proxy=ProxySettings(image="localhost/tulle/proxy:1"))


class Service:
    """A webhook on a fake cluster, and an API server that calls it."""

    def __init__(self, config: Path) -> None:
        self.api = FakeApi()
        for name, annotations in (("demo", {"linkerd.io/inject": "enabled"}), ("plain", {}), ("tulle", {})):
            self.api.put("namespaces", {"metadata": {"name": name, "annotations": annotations}})
        self.api.put("namespaces", {"metadata": {"name": "labelled", "labels": {"tulle.io/meshed": "enabled"}}})
        self.api.put("configmaps", {"metadata": {"name": BUNDLE}, "data": {"ca-bundle.crt": "anchor"}}, "tulle")
        kube = self.api.kube()
        self.config = ConfigFile(config)
        self.namespaces = Namespaces(kube, lambda: self.config.current.exempt_namespaces)
        self.bundle = TrustBundle(kube, "tulle", self.namespaces, lambda: ("tulle-injector", "uid"))
        self.recorder = Recorder(kube, "tulle-injector")
        self.owners = OwnerEvents(kube, self.recorder)
        self.version = ServerVersion()
        self.version.set((1, 34))
        webhook = Webhook(self.config, self.namespaces, self.bundle, self.owners, self.version)
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(webhook.app()), base_url="http://injector")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        runs = (self.namespaces.run(), self.bundle.run(), self.recorder.run(), self.owners.run())
        tasks = [asyncio.ensure_future(each) for each in runs]
        await asyncio.wait_for(asyncio.gather(self.namespaces.synced.wait(), self.bundle.synced.wait()), 5)
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()

    async def review(self, pod: dict[str, Any] = POD, **changes: Any) -> dict[str, Any]:
        answer = await self.client.post("/inject", content=body(pod, **changes))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        found: dict[str, Any] = answer.json()["response"]
        return found

    def events(self) -> list[dict[str, Any]]:
        return [each for (plural, _, _), each in self.api.objects.items() if plural == "events"]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    config = tmp_path / "config.json"
    config.write_bytes(encode_config(CONFIG))
    async with Service(config).running() as found:
        yield found


def owned(pod: dict[str, Any], kind: str = "ReplicaSet", name: str = "web-5d4f") -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "uid-rs", "controller": True}
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": [reference]}}


def replica_set(service: Service) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "uid-deploy", "controller": True}
    service.api.put("replicasets", {"metadata": {"name": "web-5d4f", "ownerReferences": [owner]}}, "demo")


async def test_a_pod_is_injected_and_its_namespace_has_the_bundle_by_then(service: Service) -> None:
    response = await service.review()
    assert response["allowed"]
    assert response["patchType"] == "JSONPatch"
    assert service.api.get("configmaps", BUNDLE, "demo") is not None


async def test_the_deployment_is_told_not_its_replica_set(service: Service) -> None:
    replica_set(service)
    await service.review(owned({"metadata": {}, "spec": {"containers": [{"name": "app"}], "hostNetwork": True}}))
    (event,) = await eventually("an event", service.events)
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Deployment", "web")
    assert event["involvedObject"]["uid"] == "uid-deploy"
    assert (event["type"], event["reason"]) == ("Warning", "InjectionSkipped")
    assert event["message"].startswith("host_network_enabled: ")


async def test_an_owner_that_cannot_be_read_is_told_itself(service: Service) -> None:
    await service.review(owned({"metadata": {"annotations": {"linkerd.io/inject": "maybe"}}, "spec": POD["spec"]}))
    (event,) = await eventually("an event", service.events)
    assert event["involvedObject"]["kind"] == "ReplicaSet"
    assert event["reason"] == "InjectionRefused"
    assert "invalid_inject_annotation_at_workload" in event["message"]


async def test_a_pod_without_owner_is_told_itself(service: Service) -> None:
    ports = [{"containerPort": 53, "protocol": "UDP"}]
    await service.review({"metadata": {"name": "lone"}, "spec": {"containers": [{"name": "app", "ports": ports}]}})
    await eventually("both events", lambda: len(service.events()) == 2)
    assert {each["reason"] for each in service.events()} == {"Injected", "InjectionNotice"}
    assert {each["involvedObject"]["name"] for each in service.events()} == {"lone"}


async def test_pods_outside_the_mesh_make_no_noise(service: Service) -> None:
    await service.review(namespace="plain")
    await service.review({**POD, "metadata": {"annotations": {"linkerd.io/inject": "disabled"}}})
    await service.review(namespace="labelled")
    await eventually("the one event", service.events)
    await asyncio.sleep(0.05)
    assert [each["metadata"]["namespace"] for each in service.events()] == ["labelled"]


async def test_a_dry_run_leaves_no_trace(service: Service) -> None:
    before = {method for method, _ in service.api.requests}
    response = await service.review(dryRun=True)
    assert response["patchType"] == "JSONPatch"
    await asyncio.sleep(0.05)
    assert service.api.get("configmaps", BUNDLE, "demo") is None
    assert service.events() == []
    assert before == {"GET"} == {method for method, _ in service.api.requests}


async def test_a_pod_injected_by_hand_gets_the_bundle_too(service: Service) -> None:
    by_hand: dict[str, Any] = {
        "metadata": {"labels": {"linkerd.io/control-plane-ns": "tulle"}},
        "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "linkerd-proxy"}]},
    }
    annotated = {**by_hand, "metadata": {**by_hand["metadata"], "annotations": {"linkerd.io/inject": "enabled"}}}
    response = await service.review(annotated, namespace="plain")
    assert "patch" not in response
    assert service.api.get("configmaps", BUNDLE, "plain") is not None


async def test_a_slow_bundle_does_not_stop_admission(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(namespace: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(service.bundle, "ensure", stuck)
    monkeypatch.setattr(module, "BUNDLE_SECONDS", 0.01)
    assert (await service.review())["patchType"] == "JSONPatch"


async def test_an_annotation_counts_at_once_though_its_notification_is_late(service: Service) -> None:
    service.api.silently("namespaces", {"metadata": {"name": "plain", "annotations": {"linkerd.io/inject": "enabled"}}})
    assert (await service.review(namespace="plain"))["patchType"] == "JSONPatch"


async def test_an_old_api_server_gets_classic_sidecars(service: Service) -> None:
    service.version.set((1, 28))
    assert (await service.review())["auditAnnotations"] == {"injection": "classic"}


async def test_a_namespace_that_cannot_be_read_is_an_error_not_a_decision(service: Service) -> None:
    answer = await service.client.post("/inject", content=body(namespace="unknown"))
    assert answer.status_code == 500
    assert "unknown" in answer.text


@pytest.mark.parametrize(("content", "status"), [(b"junk", 400), (b"{}", 400), (b"x" * (module.MAX_BODY + 1), 413)])
async def test_what_is_no_review_is_refused(service: Service, content: bytes, status: int) -> None:
    assert (await service.client.post("/inject", content=content)).status_code == status


async def test_other_paths_and_methods_are_not_served(service: Service) -> None:
    assert (await service.client.get("/inject")).status_code == 405
    assert (await service.client.post("/")).status_code == 404


async def test_answers_are_counted_by_result_and_reason(service: Service) -> None:
    def counted(result: str, reason: str) -> float:
        labels = {"result": result, "reason": reason}
        return REGISTRY.get_sample_value("tulle_injector_admissions_total", labels) or 0.0

    before = counted("inject", ""), counted("skip", "injection_enable_annotation_absent")
    await service.review()
    await service.review(namespace="plain")
    assert (counted("inject", ""), counted("skip", "injection_enable_annotation_absent")) == (
        before[0] + 1,
        before[1] + 1,
    )


async def test_a_changed_configuration_is_taken_live_and_a_bad_one_refused(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(encode_config(InjectorConfig(proxy=ProxySettings(image="new:2"))))
    service.config.read()
    assert "new:2" in json.dumps(service.config.current.proxy.image)
    file.write_bytes(b'{"proxy": {}}')
    service.config.read()
    assert service.config.current.proxy.image == "new:2"
    file.unlink()
    service.config.read()
    assert service.config.current.proxy.image == "new:2"


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"{}", "proxy")])
def test_without_a_usable_configuration_there_is_no_start(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=words):
        ConfigFile(file)
