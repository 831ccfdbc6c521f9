"""Events: written once, counted after that, bounded, and never a failure of whoever records them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from components.kube import events as module
from components.kube.events import Recorder, Reference
from tests.kit.fake_api import FakeApi, eventually

WEB = Reference("apps/v1", "Deployment", "demo", "web", "uid-1")


@contextlib.asynccontextmanager
async def recording(api: FakeApi) -> AsyncIterator[Recorder]:
    recorder = Recorder(api.kube(), "tulle-injector")
    task = asyncio.ensure_future(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()


def written(api: FakeApi) -> list[dict[str, Any]]:
    return [body for (plural, _, _), body in api.objects.items() if plural == "events"]


async def test_an_event_says_what_about_whom() -> None:
    api = FakeApi()
    async with recording(api) as recorder:
        recorder.record(WEB, "Warning", "InjectionSkipped", "host_network_enabled: no")
        await eventually("an event", lambda: written(api))
    (event,) = written(api)
    assert event["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "namespace": "demo",
        "name": "web",
        "uid": "uid-1",
    }
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "InjectionSkipped", 1)
    assert event["source"] == {"component": "tulle-injector"}
    assert event["metadata"]["namespace"] == "demo"


async def test_the_same_event_is_counted_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    async with recording(api) as recorder:
        for _ in range(5):
            recorder.record(WEB, "Warning", "InjectionRefused", "same")
        recorder.record(WEB, "Warning", "InjectionRefused", "other")
        await eventually("two events", lambda: len(written(api)) == 2)
        monkeypatch.setattr(module, "REPEAT_SECONDS", 0.0)
        recorder.record(WEB, "Warning", "InjectionRefused", "same")
        await eventually(
            "the count", lambda: [each["count"] for each in written(api) if each["message"] == "same"] == [6]
        )


async def test_an_event_that_the_api_server_has_dropped_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    monkeypatch.setattr(module, "REPEAT_SECONDS", 0.0)
    async with recording(api) as recorder:
        recorder.record(WEB, "Normal", "Injected", "x")
        (first,) = await eventually("an event", lambda: written(api))
        api.remove("events", first["metadata"]["name"], "demo")
        recorder.record(WEB, "Normal", "Injected", "x")
        (second,) = await eventually("another", lambda: written(api))
        assert second["metadata"]["name"] != first["metadata"]["name"]


async def test_failures_and_floods_are_swallowed() -> None:
    api = FakeApi()
    async with recording(api) as recorder:
        for number in range(module.WAITING + 50):
            recorder.record(WEB, "Normal", "Injected", str(number))
        assert recorder.dropped == 50
        api.fail = [500]
        await eventually("all but one", lambda: len(written(api)) == module.WAITING - 1)


async def test_long_messages_are_cut_to_what_the_api_takes() -> None:
    api = FakeApi()
    async with recording(api) as recorder:
        recorder.record(WEB, "Normal", "Injected", "ä" * 2_000)
        (event,) = await eventually("an event", lambda: written(api))
        assert len(event["message"].encode()) <= module.MAX_MESSAGE
