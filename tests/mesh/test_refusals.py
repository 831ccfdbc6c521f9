"""Who is not let in, and that the cause is told: in a metric, in the log, and to callers of the mesh in a header."""

import ssl
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from proxy.api.names import workload_identity
from tests.kit.lines import Line, Peer, in_thread
from tests.kit.peers import Authority, Leaf, ask
from tests.kit.topology import Mesh, Pod

Lines = Callable[..., Line]
NAME = workload_identity("stranger", "demo", "tulle", "cluster.local").dns_name


def authority_of(mesh: Mesh) -> Authority:
    """The mesh's own issuer, as a chain."""
    return Authority(mesh.issuer.certificate.encode(), mesh.issuer.key.encode())


def leaf_for(mesh: Mesh, case: str) -> Leaf | None:
    """What a client of each kind shows."""
    if case == "identity_foreign":
        return authority_of(mesh).leaf(NAME.replace("cluster.local", "other.example"))
    if case == "certificate_missing":
        return None
    if case == "certificate_untrusted":
        return Authority.new("another mesh").leaf(NAME)
    if case == "certificate_expired":
        return authority_of(mesh).leaf(NAME, lifetime=timedelta(minutes=-1), age=timedelta(minutes=10))
    return authority_of(mesh).leaf(NAME)


@pytest.mark.parametrize(
    "case", ["certificate_missing", "certificate_untrusted", "certificate_expired", "identity_foreign"]
)
def test_a_client_without_a_good_certificate_is_refused_on_our_name(
    mesh: Mesh, lines: Lines, outsider: Pod, web: Pod, case: str
) -> None:
    line = lines(outsider, web, direct=True)
    before = web.proxy.metric("inbound_tcp_errors_total", error=case)
    request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
    answer = outsider.namespace.within(lambda: ask(line.address, web.identity, leaf_for(mesh, case), request))
    assert answer.data == b""
    assert answer.error or case == "identity_foreign", "refused after the handshake, without an alert"
    assert line.no_connection()
    assert web.proxy.metric("inbound_tcp_errors_total", error=case) == before + 1
    assert f"error={case}" in web.proxy.log


def test_a_client_with_a_good_certificate_is_let_in(mesh: Mesh, lines: Lines, outsider: Pod, web: Pod) -> None:
    line = lines(outsider, web, direct=True)
    request = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"

    def serve() -> None:
        app = line.accept()
        assert app.head()[1]["l5d-client-id"] == NAME
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with in_thread(serve):
        answer = outsider.namespace.within(lambda: ask(line.address, web.identity, leaf_for(mesh, "good"), request))
    assert answer.data.endswith(b"\r\n\r\nok")
    assert answer.error == ""


def test_a_server_with_another_identity_than_expected_gets_nothing(mesh: Mesh, lines: Lines, client: Pod) -> None:
    impostor = mesh.pod("impostor")
    fact = mesh.facts["pod demo/impostor"]["pod"]
    expected = workload_identity("honest", "demo", "tulle", "cluster.local").dns_name
    mesh.tell("pod demo/impostor", {"pod": {**fact, "identity": expected}})
    line = lines(client, impostor)
    caller = line.open()
    caller.send("GET /secret HTTP/1.1\r\nHost: honest\r\n\r\n")
    first, fields = caller.head()
    assert first.startswith("HTTP/1.1 50")
    assert fields["l5d-proxy-error"]
    # The impostor's inbound does not know the name, and passes TLS of other names on: no more than a ClientHello.
    assert line.accept().is_only(b"\x16")
    where = {"target_addr": f"{impostor.ip}:{line.port}", "server_id": expected}
    assert client.proxy.metric("outbound_tcp_errors_total", **where) >= 1
    assert "cannot connect" in client.proxy.log


def test_an_impostor_that_answers_our_name_with_its_own_certificate_is_found_out(
    mesh: Mesh, client: Pod, outsider: Pod
) -> None:
    """An endpoint whose pod is said to be meshed, but where somebody else with a good certificate answers."""
    leaf = authority_of(mesh).leaf(NAME)
    expected = workload_identity("honest", "demo", "tulle", "cluster.local").dns_name
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c").write_bytes(leaf.chain)
        Path(folder, "k").write_bytes(leaf.key)
        context.load_cert_chain(Path(folder, "c"), Path(folder, "k"))
    fact = mesh.facts["pod demo/outsider"]["pod"]
    mesh.tell("pod demo/outsider", {"pod": {**fact, "identity": expected}})
    listener = outsider.listen(9443)
    listener.settimeout(10)
    received: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            try:
                accepted = listener.accept()[0]
            except TimeoutError:
                return
            accepted.settimeout(5)
            try:
                with context.wrap_socket(accepted, server_side=True) as wrapped:
                    received.append(wrapped.recv(1000))
            except OSError:
                pass

    address = mesh.service("honest", 80, [outsider], target=9443)
    try:
        with in_thread(serve):
            answer = client.get(address)
            listener.settimeout(0.1)
        assert answer.status in (502, 504)
        assert b"".join(received) == b"", "bytes of the request reached somebody else"
        where = {"target_addr": f"{outsider.ip}:9443", "server_id": expected}
        assert client.proxy.metric("outbound_tcp_errors_total", error="identity_mismatch", **where) >= 1
        assert "identity_mismatch" in client.proxy.log
    finally:
        mesh.tell("pod demo/outsider", {"pod": fact})
        listener.close()


def test_a_meshed_endpoint_without_tls_is_never_called_in_plaintext(mesh: Mesh, client: Pod, outsider: Pod) -> None:
    fact = mesh.facts["pod demo/outsider"]["pod"]
    identity = workload_identity("honest", "demo", "tulle", "cluster.local").dns_name
    mesh.tell("pod demo/outsider", {"pod": {**fact, "identity": identity}})
    listener = outsider.listen(9444)
    listener.settimeout(5)
    address = mesh.service("downgrade", 80, [outsider], target=9444)
    try:
        connection = client.connect(address)
        connection.sendall(b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
        accepted = listener.accept()[0]
        accepted.settimeout(5)
        assert accepted.recv(1) == b"\x16", "not a ClientHello"
        accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        accepted.close()
        assert connection.recv(1000).startswith(b"HTTP/1.1 50")
    finally:
        mesh.tell("pod demo/outsider", {"pod": fact})
        listener.close()


MALFORMED = {
    "bare LF": "GET / HTTP/1.1\nHost: web\n\n",
    "no Host": "GET / HTTP/1.1\r\nX: 1\r\n\r\n",
    "two Hosts": "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "signed length": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    "length beside chunks": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded line": "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "NUL in a value": "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "CR in a value": "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "chunk size": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    "chunks in 1.0": "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
OTHER_STATUS = {
    "unknown coding": (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    "a head too large": (431, "GET / HTTP/1.1\r\nHost: a\r\n" + "X-Long: " + "y" * 200_000 + "\r\n\r\n"),
    "too many fields": (431, "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"x{n}: 1\r\n" for n in range(2000)) + "\r\n"),
    "unknown version": (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
}
CASES = [(name, 400, text) for name, text in MALFORMED.items()] + [(n, *case) for n, case in OTHER_STATUS.items()]


@pytest.mark.parametrize(("status", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("calling", ["client", "outsider"])
def test_a_malformed_request_is_answered_and_its_connection_ended(
    request: pytest.FixtureRequest, lines: Lines, web: Pod, calling: str, status: int, text: str
) -> None:
    pod: Pod = request.getfixturevalue(calling)
    line = lines(pod, web, direct=calling == "outsider")
    refusing, family = (pod, "outbound_http_errors_total") if pod.is_meshed else (web, "inbound_http_errors_total")
    before = refusing.proxy.metric(family, status_code=str(status))
    caller = line.open()
    try:
        caller.send(text)
    except (ConnectionResetError, BrokenPipeError):
        assert status == 431
    first, fields = caller.head()
    assert first.split()[1] == str(status)
    assert fields["connection"] == "close"
    assert ("l5d-proxy-error" in fields) is pod.is_meshed, "the cause is for callers of the mesh alone"
    assert caller.is_ended()
    # A body is read after its head has gone on, so a fault in it cannot keep the request from the application.
    assert line.no_connection(0.1) or "0x1" in text
    assert refusing.proxy.metric(family, status_code=str(status)) == before + 1


def test_the_proxys_own_ports_are_no_way_in(web: Pod, outsider: Pod, client: Pod) -> None:
    with Peer(outsider.connect((web.ip, 4143))) as peer:
        peer.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.is_ended()
    assert web.proxy.metric("inbound_tcp_errors_total", error="gateway loop") >= 1
    before = web.proxy.metric("inbound_tcp_errors_total", error="gateway loop")
    with outsider.namespace.entered():
        answer = ask((web.ip, 4143), "other.example", None)
    assert (answer.peer, answer.data) == (None, b"")
    assert web.proxy.metric("inbound_tcp_errors_total", error="gateway loop") == before + 1
    with client.connect(("127.0.0.1", 4140)) as connection:
        assert connection.recv(100) == b""
    assert client.proxy.metric("outbound_tcp_errors_total", error="loop") >= 1


@pytest.mark.parametrize(
    "alpn", ["tulle/\xff\xfe", "tulle/opaque/\xb2", "tulle/opaque/\xc2\xb2", "tulle/opaque/70000"]
)
def test_a_protocol_that_names_no_port_is_the_peers_fault(mesh: Mesh, outsider: Pod, web: Pod, alpn: str) -> None:
    before = web.proxy.metric("inbound_tcp_errors_total", error="gateway loop")
    with outsider.namespace.entered():
        answer = ask((web.ip, 4143), web.identity, leaf_for(mesh, "good"), alpn=(alpn,))
    assert answer.data == b""
    assert web.proxy.metric("inbound_tcp_errors_total", error="gateway loop") == before + 1
