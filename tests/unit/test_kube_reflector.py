"""The reflector: never empty after a failure, silent where nothing changed, right again after a lost notification."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from components.kube import reflector as module
from components.kube.client import PODS
from components.kube.reflector import Reflector
from tests.kit.fake_api import FakeApi, eventually


class Meta(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] | None = None


class Pod(msgspec.Struct, frozen=True):
    metadata: Meta


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


class Follower:
    """A reflector that writes down what it is told."""

    def __init__(self, api: FakeApi, **options: Any) -> None:
        self.told: list[tuple[str | None, str | None]] = []
        self.reflector: Reflector[str, Pod] = Reflector(
            api.kube(), PODS, Pod, lambda each: each.metadata.name, self._on_change, **options
        )

    def _on_change(self, old: Pod | None, new: Pod | None) -> None:
        self.told.append((old.metadata.name if old else None, new.metadata.name if new else None))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Follower"]:
        task = asyncio.ensure_future(self.reflector.run())
        try:
            await asyncio.wait_for(self.reflector.synced.wait(), 5)
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def names(self) -> list[str]:
        return sorted(self.reflector.objects)


@pytest.fixture
def api() -> FakeApi:
    found = FakeApi()
    found.put("pods", pod("a"), "demo")
    found.put("pods", pod("b"), "demo")
    return found


async def test_what_is_there_comes_first_then_what_changes(api: FakeApi) -> None:
    async with Follower(api).running() as follower:
        assert follower.told == [(None, "a"), (None, "b")]
        api.put("pods", pod("c"), "demo")
        api.put("pods", pod("a", app="web"), "demo")
        api.remove("pods", "b", "demo")
        await eventually("three changes", lambda: len(follower.told) == 5)
        assert follower.told[2:] == [(None, "c"), ("a", "a"), ("b", None)]
        assert follower.names == ["a", "c"]


async def test_watches_that_end_at_once_are_not_asked_for_without_a_pause(api: FakeApi) -> None:
    async with Follower(api).running():
        ticking = asyncio.get_running_loop().time() + 0.3
        before = len(api.requests)
        while asyncio.get_running_loop().time() < ticking:
            api.break_watches()
            await asyncio.sleep(0)
        assert len(api.requests) - before < 60


async def test_a_change_nobody_can_see_wakes_nobody(api: FakeApi) -> None:
    async with Follower(api).running() as follower:
        api.put("pods", {**pod("a"), "status": {"heartbeat": 1}}, "demo")
        api.put("pods", pod("c"), "demo")
        await eventually("the pod after it", lambda: "c" in follower.names)
        assert follower.told == [(None, "a"), (None, "b"), (None, "c")]


async def test_objects_are_kept_as_what_they_are_converted_to(api: FakeApi) -> None:
    def nameless(each: Pod) -> Pod:
        return Pod(Meta(each.metadata.name.upper()))

    async with Follower(api, convert=nameless).running() as follower:
        assert follower.names == ["A", "B"]
        api.put("pods", pod("a", app="web"), "demo")
        api.remove("pods", "b", "demo")
        await eventually("b gone", lambda: follower.names == ["A"])
        assert ("A", "A") not in follower.told


async def test_a_watch_that_ends_goes_on_from_where_it_was(api: FakeApi) -> None:
    async with Follower(api).running() as follower:
        api.break_watches()
        api.put("pods", pod("c"), "demo")
        await eventually("c", lambda: "c" in follower.names)
        assert follower.reflector.lists == 1


@pytest.mark.parametrize("in_stream", [False, True])
async def test_a_version_too_old_means_a_new_list_and_only_differences_are_told(api: FakeApi, in_stream: bool) -> None:
    async with Follower(api).running() as follower:
        api.gone_in_stream = in_stream
        api.silently("pods", pod("c"), "demo")
        del api.objects[("pods", "demo", "b")]
        api.version += 1
        api.forget()
        await eventually("the list", lambda: follower.names == ["a", "c"])
        assert follower.reflector.lists == 2
        assert sorted(follower.told[2:], key=str) == [("b", None), (None, "c")]


async def test_a_lost_notification_is_made_up_for_by_the_resync(api: FakeApi) -> None:
    async with Follower(api, resync_seconds=0.05).running() as follower:
        api.silently("pods", pod("c"), "demo")
        api.break_watches()
        await eventually("c", lambda: "c" in follower.names)
        assert follower.reflector.lists >= 2


async def test_failures_leave_the_copy_as_it_is_and_are_tried_again(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BACKOFF", 0.02)
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.01)
    async with Follower(api).running() as follower:
        api.fail = [503, 500, 401, 503]
        api.break_watches()
        await eventually("the failures", lambda: not api.fail)
        assert follower.names == ["a", "b"]
        assert len(follower.told) == 2
        api.put("pods", pod("c"), "demo")
        await eventually("c", lambda: "c" in follower.names)
        assert follower.reflector.failures >= 3


async def test_it_says_how_it_is(api: FakeApi) -> None:
    async with Follower(api).running() as follower:
        assert repr(follower.reflector) == "Reflector(pods, synced, 2 objects, 1 lists, 0 failures)"
