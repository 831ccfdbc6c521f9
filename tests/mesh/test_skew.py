"""Old and new together: the pinned release's proxies and this tree's, under either one's control plane.

Every proxy calls every other through a Service, as HTTP/1, HTTP/2 and bytes, over mutual TLS; certificates are renewed,
endpoints change, and the control plane is replaced under load, as an upgrade does it.
"""

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from h2.events import DataReceived, RequestReceived, ResponseReceived

from tests.kit.http2 import POST, call, named, serve
from tests.kit.lines import OPAQUE_RANGE, App, Line, Load
from tests.kit.pinned import ROOT, MissingError, pinned
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until
from tests.mesh.conftest import NEEDS, TOOLS

# The first of them may have to compile the pinned release.
pytestmark = pytest.mark.timeout(3600)

PORT = 8080
RENEWED = {"IDENTITY_MIN_REFRESH": "200ms", "IDENTITY_MAX_REFRESH": "1s"}
PAIRS = [("old", "old"), ("old", "new"), ("new", "old"), ("new", "new")]


@pytest.fixture(scope="module")
def trees() -> dict[str, Path]:
    """Source trees by age."""
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        pytest.skip(NEEDS)
    try:
        return {"old": pinned(), "new": ROOT}
    except MissingError as error:
        pytest.skip(str(error))
        raise AssertionError from error


class Skewed:
    """A mesh with a client and a server of each age."""

    def __init__(self, mesh: Mesh, trees: dict[str, Path], control: str) -> None:
        self.mesh = mesh
        self.trees = trees
        self.control = control
        self.clients = {
            age: mesh.pod(f"client-{age}", tree=tree, settings=RENEWED) for age, tree in trees.items()
        }
        self.servers = {
            age: mesh.pod(f"server-{age}", tree=tree, settings=RENEWED, opaque=OPAQUE_RANGE)
            for age, tree in trees.items()
        }

    @property
    def pods(self) -> list[Pod]:
        return [*self.clients.values(), *self.servers.values()]


@pytest.fixture(scope="module", params=["old", "new"])
def skewed(request: pytest.FixtureRequest, trees: dict[str, Path]) -> Iterator[Skewed]:
    """Under the control plane of either age."""
    with Mesh(control_tree=trees[request.param]) as mesh:
        yield Skewed(mesh, trees, request.param)


def test_each_process_is_of_the_age_that_it_should_be(skewed: Skewed) -> None:
    for age, tree in skewed.trees.items():
        for pod in (skewed.clients[age], skewed.servers[age]):
            assert Path(f"/proc/{pod.proxy.pid}/cwd").resolve() == tree.resolve()
    assert skewed.mesh.control is not None
    assert Path(f"/proc/{skewed.mesh.control.pid}/cwd").resolve() == skewed.trees[skewed.control].resolve()


@pytest.mark.parametrize(("caller", "called"), PAIRS)
def test_requests_of_each_kind_arrive_over_mutual_tls_and_are_counted(
    skewed: Skewed, caller: str, called: str
) -> None:
    client, server = skewed.clients[caller], skewed.servers[called]
    with Line(skewed.mesh, client, server) as line, App(server, PORT):
        address = skewed.mesh.service(f"http1-{caller}-{called}", 80, [server], target=PORT)
        assert client.get(address).body == server.name.encode()

        talk = call(line)
        stream = talk.ask([*POST], body=b"question")
        app = serve(line)
        asked = app.expect(RequestReceived)
        assert app.body(asked.stream_id, 8) == b"question"
        app.answer(asked.stream_id, b"answer", 201)
        assert named(talk.expect(ResponseReceived, stream))[":status"] == "201"
        assert talk.expect(DataReceived, stream).data == b"answer"

        for port in (line.port, PORT):
            outbound = {"direction": "outbound", "target_port": str(port), "tls": "true", "server_id": server.identity}
            inbound = {"direction": "inbound", "target_port": str(port), "tls": "true", "client_id": client.identity}
            # What `tulle stat` and an upgrade's verdict are made of.
            assert client.proxy.metric("response_total", classification="success", **outbound) >= 1
            assert server.proxy.metric("response_total", classification="success", **inbound) >= 1
    with Line(skewed.mesh, client, server, opaque=True) as line:
        peer = line.open()
        peer.send(b"hello")
        app_end = line.accept()
        assert app_end.exactly(5) == b"hello"
        app_end.send(b"welcome")
        assert peer.exactly(7) == b"welcome"
        assert client.proxy.metric("tcp_open_connections", target_port=str(line.port), tls="true") >= 1


def test_what_a_service_asks_for_is_kept_by_either(skewed: Skewed) -> None:
    """Retries come as part of discovery: an answer of 503 is asked for again elsewhere."""
    asked = {"retry.linkerd.io/http": "503", "retry.linkerd.io/limit": "1"}
    bad, good = skewed.servers["old"], skewed.servers["new"]
    address = skewed.mesh.service("again", 80, [bad, good], target=PORT, annotations=asked)
    with App(bad, PORT, status=503) as failing, App(good, PORT):
        for client in skewed.clients.values():
            before = failing.answered

            def succeeds(client: Pod = client, before: int = before) -> bool:
                assert client.get(address).status == 200
                return failing.answered > before

            until(f"a failure that {client.name} did not see", succeeds, 20, 0)


def test_endpoints_that_change_are_followed(skewed: Skewed) -> None:
    servers = list(skewed.servers.values())
    address = skewed.mesh.service("moving", 80, servers[:1], target=PORT)
    with App(servers[0], PORT), App(servers[1], PORT):
        for here, there in itertools.pairwise([*servers, servers[0]]):
            for client in skewed.clients.values():
                name = here.name.encode()
                until(f"{client.name} at {here.name}", partial(answers, client, address, name), 10)
            skewed.mesh.endpoints("moving", [there], PORT)


def renewals(pod: Pod) -> float:
    """Certificates that a pod's proxy has had."""
    return float(pod.proxy.metric("control_identity_cert_refreshes_total", result="ok"))


def renewed(pod: Pod, times: float) -> bool:
    """Whether it has had more certificates than so many."""
    return renewals(pod) > times


def answers(client: Pod, address: tuple[str, int], body: bytes | None = None) -> bool:
    """Whether a call succeeds, and with this body if one is given."""
    answer = client.get(address)
    return answer.status == 200 and body in (None, answer.body)


def test_certificates_are_renewed(skewed: Skewed) -> None:
    for pod in skewed.pods:
        until(f"a second certificate of {pod.name}", partial(renewed, pod, 1), 20)


def replace_control(mesh: Mesh, tree: Path) -> None:
    """Another one, which nobody reaches before it knows all that there is, as a readiness probe sees to."""
    mesh.control_pod.proxy.signal(signal.SIGSTOP)
    try:
        mesh.stop_control()
        mesh.control_tree = tree
        mesh.start_control()
    finally:
        mesh.control_pod.proxy.signal(signal.SIGCONT)


def test_the_control_plane_is_replaced_under_load_and_nothing_fails(trees: dict[str, Path]) -> None:
    """As an upgrade does it: the control plane first, while every proxy is still the old one; and back."""
    with Mesh(control_tree=trees["old"]) as mesh:
        pods = Skewed(mesh, trees, "old")
        address = mesh.service("steady", 80, list(pods.servers.values()), target=PORT)
        with App(pods.servers["old"], PORT), App(pods.servers["new"], PORT):
            with Load(pods.clients["old"], address) as old, Load(pods.clients["new"], address) as new:
                for age in ("new", "old"):
                    replace_control(mesh, trees[age])
                    # A Service that only the control plane of now has told of.
                    late = mesh.service(f"late-{age}", 80, [pods.servers["new"]], target=PORT)
                    for client in pods.clients.values():
                        until(f"{client.name} knows it", partial(answers, client, late), 30)
                    for pod in pods.pods:
                        now = renewals(pod)
                        until(f"another certificate of {pod.name}", partial(renewed, pod, now), 30)
        assert not old.failures, old.failures[:3]
        assert not new.failures, new.failures[:3]
        assert min(old.ok, new.ok) > 100
