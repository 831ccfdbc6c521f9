"""Connections that stop being HTTP: WebSocket by an independent library, other upgrades, CONNECT."""

import ssl
import threading
from collections.abc import Callable

import pytest
import trustme
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.kit.lines import Line
from tests.kit.topology import Mesh, Pod


def test_websockets_work_as_two_libraries_speak_them(mesh: Mesh, client: Pod, web: Pod) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    listener = web.listen(8765)
    server = serve(echo, sock=listener)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = mesh.service("websocket", 80, [web], target=8765)
    try:
        with connect(f"ws://web:{address[1]}/chat", sock=client.connect(address), open_timeout=5) as connection:
            for message in ("hello", "x" * 100_000, b"\x00\xff" * 50_000, ""):
                connection.send(message)
                assert connection.recv(5) == message
            connection.ping().wait(5)
        counted = client.proxy.metric("response_total", direction="outbound", target_port="8765", status_code="101")
        assert counted == 1
    finally:
        server.shutdown()
        thread.join(5)


def test_what_follows_an_upgrade_belongs_to_it(line: Line) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: thing/2\r\n\r\nearly")
    app = line.accept()
    _, fields = app.head()
    assert (fields["connection"].lower(), fields["upgrade"]) == ("upgrade", "thing/2")
    app.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: thing/2\r\n\r\nserver first")
    first, fields = caller.head()
    assert first.startswith("HTTP/1.1 101")
    assert fields["upgrade"] == "thing/2"
    assert caller.exactly(12) == b"server first"
    assert app.exactly(5) == b"early"
    caller.send(b"\x00raw")
    assert app.exactly(4) == b"\x00raw"
    caller.finish()
    assert app.to_end() == b""
    app.send("bye")
    app.close()
    assert caller.to_end() == b"bye"


def test_an_upgrade_that_is_declined_is_an_ordinary_exchange(line: Line) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: thing/2\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert caller.answer().body == b"ok"
    caller.send("GET /again HTTP/1.1\r\nHost: web\r\n\r\n")
    assert app.head()[0] == "GET /again HTTP/1.1"


def test_an_unasked_switch_of_protocols_is_refused(line: Line) -> None:
    caller = line.open()
    caller.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: thing/2\r\n\r\n")
    assert caller.head()[0].startswith("HTTP/1.1 502")


@pytest.mark.parametrize(
    "asked",
    ["Upgrade: h2c", "Upgrade: H2C", "Upgrade: websocket, h2c", "Upgrade: websocket\r\nUpgrade: h2c", "Upgrade: h2"],
)
@pytest.mark.parametrize("calling", ["client", "outsider"])
def test_nobody_is_offered_http2_by_an_upgrade(
    request: pytest.FixtureRequest, lines: Callable[..., Line], web: Pod, calling: str, asked: str
) -> None:
    """RFC 9113 section 3.1 gave it up; inside such a tunnel requests would pass unseen (h2c smuggling)."""
    line = lines(request.getfixturevalue(calling), web, direct=calling == "outsider")
    caller = line.open()
    caller.send(
        f"POST / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\n{asked}\r\n"
        "Content-Length: 0\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    )
    app = line.accept()
    _, fields = app.head()
    assert not {"upgrade", "http2-settings"} & set(fields)
    assert "upgrade" not in fields.get("connection", "").lower()
    app.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert caller.head()[0].startswith("HTTP/1.1 502"), "a switch that nobody asked for"


def test_settings_of_http2_stay_on_their_hop_even_where_connection_does_not_name_them(line: Line) -> None:
    caller = line.open()
    caller.send("GET / HTTP/1.1\r\nHost: web\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
    assert "http2-settings" not in line.accept().head()[1]


def test_connect_makes_a_tunnel(line: Line) -> None:
    caller = line.open()
    caller.send("CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n")
    app = line.accept()
    assert app.head()[0] == "CONNECT elsewhere:443 HTTP/1.1"
    app.send("HTTP/1.1 200 Connected\r\n\r\n")
    first, fields = caller.head()
    assert first == "HTTP/1.1 200 Connected"
    assert not {"content-length", "transfer-encoding"} & set(fields), "RFC 9110 section 9.3.6"
    caller.send(b"\x16\x03 anything")
    assert app.exactly(11) == b"\x16\x03 anything"
    app.send(b"and back")
    assert caller.exactly(8) == b"and back"


def test_connect_that_is_refused(line: Line) -> None:
    caller = line.open()
    caller.send("CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n")
    app = line.accept()
    app.head()
    app.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
    first, _ = caller.head()
    assert first == "HTTP/1.1 403 Forbidden"
    assert caller.exactly(2) == b"no"


@pytest.mark.parametrize("calling", ["client", "outsider"])
def test_tls_of_the_applications_own_is_passed_through(
    request: pytest.FixtureRequest, lines: Callable[..., Line], web: Pod, calling: str
) -> None:
    pod: Pod = request.getfixturevalue(calling)
    line = lines(pod, web, direct=calling == "outsider")
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("app.example").configure_cert(theirs)
    caller = line.open()
    answers: list[bytes] = []

    def talk() -> None:
        with ours.wrap_socket(caller.socket, server_hostname="app.example") as wrapped:
            wrapped.sendall(b"hello")
            answers.append(wrapped.recv(100))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    app = line.accept()
    with theirs.wrap_socket(app.socket, server_side=True) as wrapped:
        assert wrapped.recv(100) == b"hello"
        wrapped.sendall(b"world")
        thread.join(5)
    assert answers == [b"world"]
    if calling == "outsider":
        passed = {"tls": "opaque", "sni": "app.example", "target_port": str(line.port)}
        assert web.proxy.metric("tcp_open_total", direction="inbound", **passed) == 1
