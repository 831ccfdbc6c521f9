"""Endpoints that keep failing are left alone, and come back."""

import itertools
import time
from collections.abc import Iterator

import pytest
from h2.events import StreamEnded

from tests.kit.http2 import GRPC, GRPCApp, Talk
from tests.kit.lines import App, Load, Peer
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until, while_true

ACCRUAL = "balancer.linkerd.io/failure-accrual"
_ports = itertools.count(7_100)


def breaking(failures: int, penalty: str) -> dict[str, str]:
    """The annotations of a Service whose endpoints have so many failures in a row."""
    return {
        ACCRUAL: "consecutive", f"{ACCRUAL}-consecutive-max-failures": str(failures),
        f"{ACCRUAL}-consecutive-min-penalty": penalty, f"{ACCRUAL}-consecutive-max-penalty": "1m",
        f"{ACCRUAL}-consecutive-jitter-ratio": "0",
    }  # fmt: skip


@pytest.fixture(scope="module")
def trio(mesh: Mesh) -> Iterator[list[Pod]]:
    """Three meshed pods."""
    pods = [mesh.pod(f"frail-{number}") for number in range(3)]
    yield pods
    for pod in pods:
        pod.proxy.stop(1)


@pytest.fixture
def port() -> int:
    """Of the applications of one test."""
    return next(_ports)


def statuses(client: Pod, address: tuple[str, int], count: int) -> list[int]:
    return [client.get(address).status for _ in range(count)]


def test_a_failing_endpoint_is_left_alone_and_comes_back_by_one_probe(
    mesh: Mesh, client: Pod, trio: list[Pod], port: int
) -> None:
    address = mesh.service("frail", 80, trio[:2], target=port, annotations=breaking(3, "2s"))
    with App(trio[0], port, status=500) as bad, App(trio[1], port) as good:
        until("three failures", lambda: client.get(address) and bad.answered == 3, 10, 0)
        begun = time.monotonic()
        assert statuses(client, address, 30) == [200] * 30
        assert bad.answered == 3, "it is asked while it is left alone"
        # The other one is slow as well, so that the balancer would rather have this one.
        bad.delay, good.delay = 0.5, 0.3
        with Load(client, address, clients=6) as load:
            until("a probe", lambda: bad.received == 4, 5, 0.01)
            assert time.monotonic() - begun > 1.8, "asked before its penalty was over"
            while_true("one probe at a time", lambda: bad.received == 4, 0.3, 0.02)
            until("the probe's answer", lambda: bad.answered == 4, 5, 0.01)
            failed_again = time.monotonic()
            bad.status, bad.delay = 200, 0.3
            while_true("twice the penalty for a probe that fails", lambda: bad.received == 4, 3, 0.05)
            until("the next probe", lambda: bad.received == 5, 5, 0.01)
            assert time.monotonic() - failed_again > 3.5
            bad.delay = 0.0
            until("its share of the load", lambda: bad.answered > 50, 5, 0.05)
        assert good.answered > 40
        assert len(load.failures) == 1, "only the probe failed"


def test_a_service_that_fails_everywhere_keeps_half_of_its_endpoints(
    mesh: Mesh, client: Pod, trio: list[Pod], port: int
) -> None:
    address = mesh.service("broken", 80, trio, target=port, annotations=breaking(1, "1m"))
    apps = [App(pod, port, status=503) for pod in trio]
    try:

        def asked() -> list[int]:
            assert client.get(address).status == 503
            return sorted(app.answered for app in apps)

        until("two of three go on being asked", lambda: asked()[1] > 5, 20, 0)
        assert asked()[0] == 1, "the first that failed is left alone"
    finally:
        for app in apps:
            app.close()


def test_an_endpoint_alone_is_never_left_alone(mesh: Mesh, client: Pod, trio: list[Pod], port: int) -> None:
    address = mesh.service("alone", 80, trio[:1], target=port, annotations=breaking(1, "1m"))
    with App(trio[0], port, status=500) as app:
        assert statuses(client, address, 5) == [500] * 5
        app.status = 200
        assert client.get(address).status == 200


def test_an_annotation_reaches_balancers_that_live(mesh: Mesh, client: Pod, trio: list[Pod], port: int) -> None:
    address = mesh.service("changed", 80, trio[:2], target=port)
    with App(trio[0], port, status=500) as bad, App(trio[1], port):
        until("many failures", lambda: client.get(address) and bad.answered > 20, 10, 0)
        mesh.annotate("changed", breaking(2, "1m"))
        until("left alone", lambda: statuses(client, address, 20) == [200] * 20, 10, 0)
        mesh.annotate("changed", {})
        before = bad.answered
        until("asked again", lambda: client.get(address) and bad.answered > before + 5, 10, 0)


def test_connections_that_break_are_failures(mesh: Mesh, client: Pod, trio: list[Pod], port: int) -> None:
    address = mesh.service("dead", 80, trio[:2], target=port, annotations=breaking(3, "1m"))
    # Nothing listens in the first pod: its proxy answers that the request reached nobody, and it is sent elsewhere.
    with App(trio[1], port) as good:
        where = {"direction": "outbound", "target_addr": f"{trio[0].ip}:{port}"}

        def tried() -> float:
            assert statuses(client, address, 10) == [200] * 10
            return float(client.proxy.metric("response_total", **where))

        until("three failures", lambda: tried() == 3, 20, 0)
        assert [tried() for _ in range(3)] == [3, 3, 3], "it is asked while it is left alone"
        assert good.answered >= 40


def test_grpc_fails_by_its_trailers(mesh: Mesh, client: Pod, trio: list[Pod], port: int) -> None:
    address = mesh.service("grpc-frail", 80, trio[:2], target=port, annotations=breaking(3, "1m"))
    with GRPCApp(trio[0], port, code=13) as bad, GRPCApp(trio[1], port) as good:
        caller = Talk(Peer(client.connect(address)), True)

        def asked() -> int:
            caller.expect(StreamEnded, caller.ask(GRPC, body=b"\0\0\0\0\1x"))
            return bad.answered

        until("three failures", lambda: asked() == 3, 20, 0)
        assert {asked() for _ in range(40)} == {3}, "it is asked while it is left alone"
        assert good.answered >= 40
        caller.peer.close()


@pytest.mark.parametrize("mode", ["consecutive", "unified"])
def test_who_asks_for_less_gets_less(mesh: Mesh, client: Pod, trio: list[Pod], port: int, mode: str) -> None:
    address = mesh.service(f"busy-{mode}", 80, trio[:2], target=port, annotations={ACCRUAL: mode})
    with App(trio[0], port, status=429, fields="retry-after: 100\r\n") as busy, App(trio[1], port):
        until("an answer that asks for less", lambda: client.get(address).status == 429, 10, 0)
        asked = busy.answered
        if mode == "unified":
            assert statuses(client, address, 40) == [200] * 40
        else:
            until("as much as ever", lambda: client.get(address) and busy.answered > asked + 5, 10, 0)
