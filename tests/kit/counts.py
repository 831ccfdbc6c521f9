"""What a proxy should have counted of a line, by the labels of Linkerd's newer generation."""

import time
from collections.abc import Callable
from typing import Any, Final

from tests.kit.lines import Line
from tests.kit.topology import Pod
from tests.kit.waiting import slowness

PARENT: Final = {"parent_group": "core", "parent_kind": "Service", "parent_namespace": "demo",
                 "parent_section_name": ""}  # fmt: skip
ROUTE: Final = {"route_group": "", "route_kind": "default", "route_namespace": "", "route_name": "http"}


def parent(line: Line) -> dict[str, str]:
    """The Service that was called."""
    return {**PARENT, "parent_name": f"line-{line.port}", "parent_port": str(line.port)}


def backend(line: Line) -> dict[str, str]:
    """The same as the one that was reached."""
    return {key.replace("parent", "backend"): value for key, value in parent(line).items()}


def server(line: Line, policy: str = "all-unauthenticated") -> dict[str, str]:
    """The port, as the pod behind it sees it."""
    return {
        "parent_group": "", "parent_kind": "default", "parent_name": policy, "parent_port": str(line.port),
        "route_group": "", "route_kind": "default", "route_name": "default",
    }  # fmt: skip


def comes_to(value: Callable[[], Any], wanted: Any, seconds: float = 5) -> None:
    """Wait for a count: streams are counted when they end, which is after the client has its answer."""
    begun, allowed = time.monotonic(), seconds
    while (seen := value()) != wanted:
        if time.monotonic() > begun + allowed:
            allowed = max(allowed, seconds * slowness())
        assert time.monotonic() < begun + allowed, f"{seen!r} is not {wanted!r}"
        time.sleep(0.05)


def counted(pod: Pod, name: str, wanted: dict[str, str], count: float = 1) -> None:
    """Wait until the samples with these labels come to `count`."""
    comes_to(lambda: pod.proxy.metric(name, **wanted), count)


def labels(pod: Pod, name: str, wanted: dict[str, str]) -> list[dict[str, str]]:
    """All labels of the samples that have these."""
    return [found for found, _ in pod.proxy.samples(name) if wanted.items() <= found.items()]
