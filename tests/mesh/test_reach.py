"""Where a pod's connections may go: Services of both families, addresses that no Service has, hosts outside the
cluster; and what must pass untouched."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded

from tests.kit.http2 import POST, call, named, serve
from tests.kit.lines import App, Line, Peer
from tests.kit.netns import ip
from tests.kit.topology import Mesh, Pod
from tests.kit.waiting import until

OUTSIDE = "198.51.100.7"
"""A host that the cluster's books do not know (RFC 5737)."""
WEB_TEXT = "application/grpc-web+proto"


@pytest.fixture(scope="module")
def outside(mesh: Mesh) -> Iterator[str]:
    """A host outside the cluster, reached by the default route."""
    ip("-n", mesh.switch.namespace.name, "address", "add", f"{OUTSIDE}/32", "dev", "br0")
    yield OUTSIDE
    ip("-n", mesh.switch.namespace.name, "address", "del", f"{OUTSIDE}/32", "dev", "br0")


def test_a_service_of_two_families_is_one_service(mesh: Mesh, client: Pod, web: Pod) -> None:
    four, port = mesh.service("dual", 80, [web], target=8190, dual=True)
    six = mesh.address6("dual")
    with App(web, 8190) as app:
        assert client.get((four, port)).status == 200
        assert client.get((six, port)).status == 200
        assert app.answered == 2
    for target in (f"{web.ip}:8190", f"[{web.ip6}]:8190"):
        where = {"target_addr": target, "tls": "true", "server_id": web.identity, "dst_service": "dual"}
        assert client.proxy.metric("response_total", direction="outbound", **where) == 1, target


def test_a_port_that_a_service_does_not_have_is_no_way_around_it(mesh: Mesh, client: Pod, web: Pod) -> None:
    """Nothing answers there in a cluster either: the caller is told, and soon."""
    host, _ = mesh.service("one-port", 80, [web], target=8191)
    with App(web, 8191) as app:
        answer = client.get((host, 8191))
        assert answer.status in (502, 504)
        assert answer.headers["l5d-proxy-error"]
        assert app.answered == 0


def test_http_to_a_host_outside_the_cluster_goes_where_it_was_sent(mesh: Mesh, client: Pod, outside: str) -> None:
    """Under whatever name: the address decides, not Host."""
    with contextlib.closing(mesh.switch.namespace.listen((outside, 80))) as listener:
        listener.settimeout(10)
        with Peer(client.connect((outside, 80))) as caller:
            caller.send("GET /page HTTP/1.1\r\nHost: web.demo.svc.cluster.local\r\n\r\n")
            with Peer(listener.accept()[0]) as server:
                first, fields = server.head()
                assert (first, fields["host"]) == ("GET /page HTTP/1.1", "web.demo.svc.cluster.local")
                assert not [name for name in fields if name.startswith("l5d-")]
                server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                assert caller.answer().body == b"ok"


def test_tls_to_a_host_outside_the_cluster_is_its_own(mesh: Mesh, client: Pod, outside: str) -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("www.example.org").configure_cert(theirs)
    said: list[bytes] = []

    def talk() -> None:
        with ours.wrap_socket(client.connect((outside, 443)), server_hostname="www.example.org") as wrapped:
            wrapped.sendall(b"hello")
            said.append(wrapped.recv(100))

    with contextlib.closing(mesh.switch.namespace.listen((outside, 443))) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with theirs.wrap_socket(listener.accept()[0], server_side=True) as wrapped:
            assert wrapped.recv(100) == b"hello"
            wrapped.sendall(b"world")
            thread.join(5)
    assert said == [b"world"]


def test_a_server_outside_the_cluster_may_speak_first_on_a_port_that_is_known_for_it(
    mesh: Mesh, client: Pod, outside: str
) -> None:
    with contextlib.closing(mesh.switch.namespace.listen((outside, 25))) as listener:
        listener.settimeout(10)
        with Peer(client.connect((outside, 25))) as caller, Peer(listener.accept()[0]) as server:
            server.send("220 mail.example.org\r\n")
            assert caller.until(b"\r\n") == b"220 mail.example.org\r\n"


def test_a_refused_answer_ends_its_connection(mesh: Mesh, client: Pod) -> None:
    """503 and 504 of the proxy's own: the application is to dial anew, and may then find something else."""
    address = mesh.service("nobody-home", 80, [])
    with Peer(client.connect(address)) as caller:
        caller.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first, fields = caller.head()
        assert first.startswith("HTTP/1.1 504")
        assert (fields["connection"], fields["l5d-proxy-connection"]) == ("close", "close")
        assert caller.is_ended()


def test_discovery_of_what_nobody_uses_is_given_back(mesh: Mesh, web: Pod) -> None:
    caller = mesh.pod("forgetful", settings={"LOG": "debug", "DISCOVERY_IDLE_TIMEOUT": "1s"})
    address = mesh.service("seldom", 80, [web], target=8192)
    with App(web, 8192):
        assert caller.get(address).status == 200
        until("it is given back", lambda: "destination given back" in caller.proxy.log, 20, 0.1)
        assert caller.get(address).status == 200
    known = [line for line in caller.proxy.log.splitlines() if "destination known" in line and address[0] in line]
    assert len(known) == 2


# gRPC-Web is HTTP to us: its statuses are in the body, and it is nobody's business to change them.

FRAMES = b"\0\0\0\0\1x" + b"\x80\0\0\0\x0fgrpc-status:0\r\n"


def test_grpc_web_passes_untouched_over_http1(line: Line, client: Pod) -> None:
    caller = line.open()
    caller.send(
        f"POST /a.B/C HTTP/1.1\r\nHost: web\r\nContent-Type: {WEB_TEXT}\r\nX-Grpc-Web: 1\r\nContent-Length: 6\r\n\r\n",
        FRAMES[:6],
    )
    app = line.accept()
    _, fields = app.head()
    assert (fields["content-type"], fields["x-grpc-web"]) == (WEB_TEXT, "1")
    assert app.exactly(6) == FRAMES[:6]
    app.send(f"HTTP/1.1 200 OK\r\nContent-Type: {WEB_TEXT}\r\nContent-Length: {len(FRAMES)}\r\n\r\n", FRAMES)
    answer = caller.answer()
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, WEB_TEXT, FRAMES)


def test_grpc_web_passes_untouched_over_http2(line: Line, client: Pod) -> None:
    caller = call(line)
    stream = caller.ask([*POST, ("content-type", WEB_TEXT)], body=FRAMES[:6])
    app = serve(line)
    request = app.expect(RequestReceived)
    assert named(request)["content-type"] == WEB_TEXT
    assert app.expect(DataReceived).data == FRAMES[:6]
    app.fields(request.stream_id, [(":status", "200"), ("content-type", WEB_TEXT)])
    app.say(request.stream_id, FRAMES, end=True)
    assert named(caller.expect(ResponseReceived, stream))["content-type"] == WEB_TEXT
    assert caller.body(stream, len(FRAMES)) == FRAMES
    caller.expect(StreamEnded, stream)
    counted = {"direction": "outbound", "target_port": str(line.port), "classification": "success"}
    until("it is counted", lambda: client.proxy.metric("response_total", **counted) == 1, 5)


# Headers of the mesh's own, forged

FORGED = {
    "l5d-client-id": "admin.demo.serviceaccount.identity.tulle.cluster.local",
    "l5d-proxy-error": "unreached: forged", "l5d-proxy-connection": "close", "l5d-dst-canonical": "forged.svc:80",
    "l5d-dst-override": "forged.svc:80", "l5d-orig-proto": "HTTP/1.1",
}  # fmt: skip


@pytest.mark.parametrize("where", ["fields", "trailers"])
@pytest.mark.parametrize("calling", ["client", "outsider"])
def test_nobody_forges_what_proxies_say_to_each_other(
    request: pytest.FixtureRequest, lines: Callable[..., Line], client: Pod, web: Pod, calling: str, where: str
) -> None:
    pod: Pod = request.getfixturevalue(calling)
    line = lines(pod, web, direct=calling == "outsider")
    forged = dict(FORGED)
    if pod.is_meshed:
        forged["l5d-require-id"] = web.identity  # kept to by the caller's own proxy, and not passed on
    text = "".join(f"{name}: {value}\r\n{name.upper()}: {value}\r\n" for name, value in forged.items())
    if "l5d-require-id" in forged:
        text = text.replace(f"L5D-REQUIRE-ID: {web.identity}\r\n", "")
    chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    fields, trailers = (text, "") if where == "fields" else ("", text)
    caller = line.open()
    caller.send(f"POST / HTTP/1.1\r\nHost: web\r\n{fields}{chunked}{trailers}\r\n")
    app = line.accept()
    seen = app.head()[1]
    body = app.until(b"0\r\n") + app.until(b"\r\n")
    assert {name: value for name, value in seen.items() if name.startswith("l5d-")} == (
        {"l5d-client-id": client.identity} if pod.is_meshed else {}
    )
    assert b"l5d" not in body.lower()
    app.send(f"HTTP/1.1 503 Forged\r\n{fields}{chunked}{trailers}\r\n")
    first, seen = caller.head()
    assert first == "HTTP/1.1 503 Forged", "an application cannot have its answer taken for a proxy's"
    assert not [name for name in seen if name.startswith("l5d-")]
    assert b"l5d" not in (caller.until(b"0\r\n") + caller.until(b"\r\n")).lower()
    assert line.no_connection(0.1), "it was tried again"
