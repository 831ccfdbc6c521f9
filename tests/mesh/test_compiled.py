"""The path of a request is compiled: requests enter no interpreted function."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest
from h2.events import RequestReceived, StreamEnded

from tests.kit.http2 import POST, call, serve
from tests.kit.lines import App, Line
from tests.kit.profiled import WRITE_SECONDS
from tests.kit.sidecar import as_proxy_user, read_answer
from tests.kit.topology import Mesh, Pod

REQUESTS = 1000
BESIDES = REQUESTS // 2
"""Calls that may fall into the time of a test and have nothing to do with its requests: housekeeping, control streams;
the more the slower the machine is. One per request would be twice as many."""


ALL = {
    "balancer.linkerd.io/failure-accrual": "unified", "retry.linkerd.io/http": "5xx",
    "retry.linkerd.io/grpc": "internal",
    "retry.linkerd.io/timeout": "10s", "timeout.linkerd.io/request": "20s", "timeout.linkerd.io/idle": "10s",
}  # fmt: skip
"""Everything that a Service may ask of its callers' proxies per request."""


class Watched:
    """A meshed pod whose proxy lists the interpreted functions it enters."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        # A folder the proxy's user may write to; the pod's own is the test's.
        self.folder = mesh.folder / f"watched-{name}"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.file = self.folder / "entered.json"
        command = [*as_proxy_user(), sys.executable, "-m", "tests.kit.profiled", str(self.file)]
        self.pod: Pod = mesh.pod(name, command=command)

    def entered(self) -> Counter[str]:
        """What it has entered by now."""
        time.sleep(3 * WRITE_SECONDS)
        return Counter(json.loads(self.file.read_text()))


@pytest.fixture(scope="module")
def both(mesh: Mesh) -> tuple[Watched, Watched]:
    return Watched(mesh, "watched-client"), Watched(mesh, "watched-server")


def entered_during(both: tuple[Watched, Watched], work: Callable[[], None]) -> dict[str, Counter[str]]:
    before = [each.entered() for each in both]
    work()
    return {each.pod.name: each.entered() - old for each, old in zip(both, before, strict=True)}


@pytest.mark.parametrize("annotations", [{}, ALL], ids=["plain", "annotated"])
def test_http1(mesh: Mesh, both: tuple[Watched, Watched], annotations: dict[str, str]) -> None:
    client, server = (each.pod for each in both)
    address = mesh.service("watched", 9_500, [server], annotations=annotations)
    with App(server, 9_500), client.connect(address) as connection:

        def ask(count: int) -> None:
            for _ in range(count):
                connection.sendall(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello")
                assert read_answer(connection).status == 200

        ask(5)
        for pod, entered in entered_during(both, lambda: ask(REQUESTS)).items():
            assert entered.total() < BESIDES, f"{pod}: {entered.most_common(10)}"


@pytest.mark.parametrize("annotations", [{}, ALL], ids=["plain", "annotated"])
def test_http2(mesh: Mesh, both: tuple[Watched, Watched], annotations: dict[str, str]) -> None:
    client, server = (each.pod for each in both)
    with Line(mesh, client, server, annotations=annotations) as line:
        caller = call(line)
        caller.ask(POST, body=b"hello")
        app = serve(line)

        def ask(count: int) -> None:
            for _ in range(count):
                app.answer(app.expect(RequestReceived).stream_id, b"answer")
                caller.expect(StreamEnded)
                app.events.clear()
                caller.events.clear()
                caller.ask(POST, body=b"hello")

        ask(5)
        for pod, entered in entered_during(both, lambda: ask(REQUESTS)).items():
            assert entered.total() < BESIDES, f"{pod}: {entered.most_common(10)}"


def test_the_list_is_not_empty_by_mistake(both: tuple[Watched, Watched]) -> None:
    """Each scrape enters Python, so the lists grow by it."""
    for each in both:
        before = each.entered()
        for _ in range(20):
            assert each.pod.proxy.get("/metrics").status == 200
        assert (each.entered() - before).total() > 20
