"""gRPC's interop suite through both proxies: every case passes, and we have counted what its client has counted."""

import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from proxy.api.labels import OUTBOUND_PORT
from tests.kit import frames, tools
from tests.kit.capture import Capture
from tests.kit.frames import Kind
from tests.kit.origins import Server
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

PORT: Final = 7070
NAMED_PORT: Final = 7071
"""Of the server that says its name, for the one case that asks for it."""
CASES: Final = (
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service", "pick_first_unary",
    "orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
)  # fmt: skip
"""All of the suite's cases but those that need Google's own credentials."""

HIDDEN: Final = {"orca_per_rpc": 1, "orca_oob": 1}
"""Streams of the client's own load balancer, which it opens beside its calls, cancels at the end and does not count."""
RACING: Final = ("cancel_after_begin", "cancel_after_first_response", "timeout_on_sleeping_server")
"""Here the answer and the cancellation may pass each other: how many there were is certain, who was first is not.
gRPC's client counts a call before it writes it, and may cancel it in between: what has left it is counted on the wire.
"""

LOOPBACK: Final = "127.0.0.1"

Counts = tuple[int, Counter[str], int]
"""Requests, statuses that came in trailers, and streams that ended without one."""


@pytest.fixture(scope="module")
def addresses(mesh: Mesh, web: Pod, go_tools: None) -> Iterator[dict[int, str]]:
    """Where gRPC's interop servers are called at, by their ports."""
    plain = Server(web, PORT, tools.tool("interop-server"), f"-port={PORT}")
    named = Server(web, NAMED_PORT, tools.tool("interop-named"), f"-address=:{NAMED_PORT}")
    with plain, named:
        made = {port: mesh.service(f"interop-{port}", port, [web], target=port) for port in (PORT, NAMED_PORT)}
        yield {port: f"{host}:{number}" for port, (host, number) in made.items()}


def counted(pod: Pod, direction: str, port: int) -> Counts:
    """What a proxy has counted so far."""
    which = {"direction": direction, "target_port": str(port)}
    answered: Counter[str] = Counter()
    cut = 0
    for labels, value in pod.proxy.samples("response_total"):
        if which.items() <= labels.items():
            if labels.get("grpc_status") and not labels.get("error"):
                answered[labels["grpc_status"]] += int(value)
            else:
                cut += int(value)
    return int(pod.proxy.metric("request_total", **which)), answered, cut


def growth(before: Counts, after: Counts) -> Counts:
    """What came since."""
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def opened(capture: Capture) -> int:
    """How many streams have left an application for the proxy of its pod."""
    return sum(
        len({each.stream for each in frames.split(data.removeprefix(frames.PREFACE))[0] if each.kind == Kind.HEADERS})
        for (_, _, _, port), data in capture.touching(LOOPBACK)
        if port == OUTBOUND_PORT
    )


def comparable(counts: Counts, case: str) -> Counts:
    """What must be equal on all sides."""
    requests, answered, cut = counts
    return (requests, Counter(), cut + answered.total()) if case in RACING else counts


@pytest.mark.parametrize("case", CASES)
def test_a_case_passes_and_is_counted_alike(addresses: dict[int, str], client: Pod, web: Pod, case: str) -> None:
    port = NAMED_PORT if case == "pick_first_unary" else PORT
    sides = ((client, "outbound", port), (web, "inbound", port))
    before = [counted(*side) for side in sides]
    command = [tools.tool("interop-client"), f"-address={addresses[port]}", f"-case={case}", "-rounds=20"]
    with contextlib.ExitStack() as stack:
        with client.namespace.entered():
            capture = stack.enter_context(Capture("lo"))
        done = subprocess.run(client.namespace.command(*command), capture_output=True, text=True, timeout=80)
        assert done.returncode == 0, done.stderr[-3000:]
        said: dict[str, Any] = json.loads(done.stdout)
        hidden = HIDDEN.get(case, 0)
        own = comparable((said["requests"] + hidden, Counter(said["answered"]), said["cut"] + hidden), case)
        for side, old in zip(sides, before, strict=True):

            def alike(side: tuple[Pod, str, int] = side, old: Counts = old) -> bool:
                seen = comparable(growth(old, counted(*side)), case)
                if case in RACING:
                    left = opened(capture)
                    assert left <= own[0], f"{left} streams on the wire, {own[0]} calls"
                    # What is cancelled at once may have gone no further than the first proxy.
                    return seen == (left, Counter(), left) or (side[1] == "inbound" and seen == (0, Counter(), 0))
                return seen == own

            try:
                until("the counters", alike, seconds=3, pause=0.05)
            except AssertionError:
                seen = growth(old, counted(*side))
                raise AssertionError(
                    f"{side[1]}: {seen}, the client itself: {own}, on the wire: {opened(capture)}"
                ) from None
