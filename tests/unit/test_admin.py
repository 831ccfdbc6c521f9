"""The admin port: who may call what, and what it answers."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.admin.server import Admin, Peer, Request, Response
from proxy.telemetry.exposition import Family
from proxy.telemetry.log import Log

PROMETHEUS = "prometheus.tulle.serviceaccount.identity.tulle.cluster.local"
LOOPBACK = Peer("127.0.0.1")
KUBELET = Peer("10.0.0.1")
SCRAPER = Peer("10.244.0.9", PROMETHEUS)
STRANGER = Peer("10.244.0.8", "web.demo.serviceaccount.identity.tulle.cluster.local")


class Bench:
    """An admin port with everything it touches in reach."""

    def __init__(self, **settings: Any) -> None:
        self.is_ready = False
        self.shutdowns = 0
        self.lines: list[str] = []
        self.log = Log(write=self.lines.append)
        self.admin = Admin(
            log=self.log,
            is_ready=lambda: self.is_ready,
            families=lambda: [Family("up", "gauge", "Up.", [((("n", str(n)),), n) for n in range(1300)])],
            shutdown=self.shut_down,
            environ={"A": "1", "B": "2"},
            metrics_identities=(PROMETHEUS,),
            **settings,
        )

    def shut_down(self) -> None:
        self.shutdowns += 1

    def ask(
        self, target: str, peer: Peer = LOOPBACK, method: str = "GET", body: bytes = b"", **headers: str
    ) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.admin.handle(Request(method, target, named, peer, body))


async def drained(body: bytes | AsyncIterator[bytes]) -> list[bytes]:
    return [body] if isinstance(body, bytes) else [chunk async for chunk in body]


def content(response: Response) -> bytes:
    return b"".join(asyncio.run(_drain(response)))


async def _drain(response: Response) -> list[bytes]:
    return await drained(response.body)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("peer", [LOOPBACK, KUBELET, SCRAPER, STRANGER])
def test_the_kubelet_and_everyone_else_may_probe(bench: Bench, peer: Peer) -> None:
    assert bench.ask("/live", peer)[::2] == (200, b"live\n")
    assert bench.ask("/ready", peer)[::2] == (503, b"not ready\n")
    bench.is_ready = True
    assert bench.ask("/ready", peer)[::2] == (200, b"ready\n")


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        (LOOPBACK, 200),
        (Peer("::1"), 200),
        (Peer("::ffff:127.0.0.1"), 200),
        (SCRAPER, 200),
        (STRANGER, 403),
        (KUBELET, 403),
        (Peer("nonsense"), 403),
    ],
)
def test_metrics_are_for_prometheus_and_the_pod_itself(bench: Bench, peer: Peer, status: int) -> None:
    response = bench.ask("/metrics", peer)
    assert response.status == status
    if status == 403:
        assert b"Prometheus" in content(response) or b"not among" in content(response)


def test_metrics_may_be_opened_to_all_by_a_setting() -> None:
    assert Bench(metrics_plaintext=True).ask("/metrics", KUBELET).status == 200


def test_metrics_come_in_chunks_and_let_the_loop_run_between_them(bench: Bench) -> None:
    async def scrape() -> tuple[int, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        chunks = await drained(bench.ask("/metrics").body)
        task.cancel()
        return len(chunks), turns

    chunks, turns = asyncio.run(scrape())
    assert chunks == 4, "three batches of lines and the end"
    assert turns >= 2


@pytest.mark.parametrize(
    ("accept", "is_packed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("identity", False),
        ("", False),
        ("gzip;q=1", True),
    ],
)
def test_metrics_are_packed_for_who_asks(bench: Bench, accept: str, is_packed: bool) -> None:
    response = bench.ask("/metrics", accept_encoding=accept)
    assert (("content-encoding", "gzip") in response.headers) is is_packed
    body = content(response)
    text = gzip.decompress(body) if is_packed else body
    assert b'up{n="599"} 599\n' in text
    assert text.endswith(b"\n# EOF\n")


PROMETHEUS_ACCEPTS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (PROMETHEUS_ACCEPTS, "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("Application/OpenMetrics-Text; version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_metrics_are_openmetrics_for_who_reads_nothing_else(bench: Bench, accept: str, format: str) -> None:
    response = bench.ask("/metrics", accept=accept)
    assert dict(response.headers)["content-type"] == format
    assert content(response).endswith(b"\n# EOF\n")


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/shutdown"), ("GET", "/env.json"), ("GET", "/proxy-log-level"), ("PUT", "/proxy-log-level")],
)
@pytest.mark.parametrize("peer", [KUBELET, SCRAPER, STRANGER])
def test_the_rest_answers_loopback_alone(method: str, target: str, peer: Peer) -> None:
    bench = Bench(shutdown_enabled=True)
    response = bench.ask(target, peer, method, b"debug")
    assert response.status == 403
    assert b"localhost" in content(response)
    assert (bench.shutdowns, bench.log.level) == (0, "info")


def test_shutdown_is_off_unless_switched_on(bench: Bench) -> None:
    assert bench.ask("/shutdown", method="POST")[::2] == (404, b"shutdown endpoint is not enabled\n")
    enabled = Bench(shutdown_enabled=True)
    refused = enabled.ask("/shutdown")
    assert refused.status == 405
    assert ("allow", "POST") in refused.headers
    assert enabled.shutdowns == 0
    assert enabled.ask("/shutdown", method="POST")[::2] == (200, b"shutdown\n")
    assert enabled.shutdowns == 1


def test_the_environment_is_shown_whole_or_by_name(bench: Bench) -> None:
    assert json.loads(content(bench.ask("/env.json"))) == {"A": "1", "B": "2"}
    assert json.loads(content(bench.ask("/env.json?B&C"))) == {"B": "2", "C": None}


def test_the_log_level_can_be_read_and_changed(bench: Bench) -> None:
    assert content(bench.ask("/proxy-log-level")) == b"info\n"
    assert bench.ask("/proxy-log-level", method="PUT", body=b"debug\n").status == 204
    assert bench.log.level == "debug"
    assert bench.ask("/proxy-log-level", method="PUT", body=b"loud").status == 400
    assert bench.ask("/proxy-log-level", method="DELETE").status == 405
    assert bench.log.level == "debug"


@pytest.mark.parametrize("target", ["/", "/metrics/", "/../metrics", "", "/LIVE"])
def test_any_other_path_is_not_found(bench: Bench, target: str) -> None:
    assert bench.ask(target).status == 404


def test_a_head_is_a_get_without_its_body(bench: Bench) -> None:
    for path in ("/live", "/metrics"):
        response = bench.ask(path, method="HEAD")
        assert response[::2] == (200, b"")


def test_other_methods_are_told_what_is_allowed(bench: Bench) -> None:
    assert bench.ask("/live", method="POST").status == 405
    assert ("allow", "GET, HEAD") in bench.ask("/metrics", method="POST").headers
