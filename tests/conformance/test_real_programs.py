"""Programs that everybody knows, through both proxies, with no word to them of a mesh."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme

from tests.kit.origins import Nginx, Server
from tests.kit.sidecar import ROOT
from tests.kit.topology import Mesh, Pod

NGINX: Final = 8300
NGINX2: Final = 8301
TLS: Final = 8302
GREETER: Final = 8303
UPLOADS: Final = 8304
REDIS: Final = 6379
"""Opaque by default, as Redis's port is everywhere."""
BIG: Final = 8_000_000
TAKES_UPLOADS: Final = f"""
    server {{
        listen [::]:{UPLOADS} ipv6only=off;
        client_body_in_file_only on;
        location / {{
            proxy_pass http://127.0.0.1:{NGINX}; proxy_pass_request_body off; proxy_set_header content-length "";
        }}
    }}
"""
"""nginx reads a body whole, into a file, before it asks another server for the answer; by itself it reads none."""
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(client: Pod) -> Run:
    """Runs a program as the client's application, and returns what it printed."""

    def done(*command: str, stdin: bytes = b"", code: int = 0) -> str:
        inside = client.namespace.command(*command)
        ended = subprocess.run(inside, input=stdin, capture_output=True, timeout=60, cwd=ROOT)
        assert ended.returncode == code, (
            f"{command}: {ended.returncode}\n{ended.stderr.decode(errors='replace')[-3000:]}"
        )
        return ended.stdout.decode(errors="replace")

    return done


@pytest.fixture(scope="module")
def site(mesh: Mesh, web: Pod) -> Iterator[dict[int, str]]:
    """nginx with a page, a large file, and a place that takes uploads."""
    folder = web.folder / "files"
    folder.mkdir(exist_ok=True)
    (folder / "big").write_bytes(os.urandom(BIG))
    with Nginx(web, NGINX, body="a page", settings=TAKES_UPLOADS), Nginx(web, NGINX2, http2=True, body="a page"):
        ports = (NGINX, NGINX2, UPLOADS)
        addresses = {port: mesh.service(f"site-{port}", 80, [web], target=port) for port in ports}
        yield {port: f"http://{host}:{number}" for port, (host, number) in addresses.items()}


def test_curl_and_nginx(run: Run, site: dict[int, str], client: Pod, web: Pod, tmp_path: Path) -> None:
    url = site[NGINX]
    assert run("curl", "-sS", "--fail", f"{url}/", f"{url}/again") == "a pagea page"
    assert run("curl", "-sS", "--http1.0", "--fail", f"{url}/") == "a page"
    assert run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", f"{url}/files/big") == "405"
    copy = tmp_path / "copy"
    run("curl", "-sS", "--fail", "-o", str(copy), f"{url}/files/big")
    original = (web.folder / "files" / "big").read_bytes()
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(original).digest()
    part = run("curl", "-sS", "--fail", "-r", "100-199", "-o", str(copy), "-w", "%{http_code}", f"{url}/files/big")
    assert (part, copy.read_bytes()) == ("206", original[100:200])
    where = {"target_port": str(NGINX), "tls": "true", "server_id": web.identity}
    assert client.proxy.metric("response_total", direction="outbound", **where) >= 5


@pytest.mark.parametrize("how", ["of a known length", "in chunks", "when told to go on"])
def test_curl_uploads_to_nginx(run: Run, site: dict[int, str], web: Pod, how: str) -> None:
    more = {"of a known length": ["-H", "Expect:"], "in chunks": ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"],
            "when told to go on": ["-H", "Expect: 100-continue"]}[how]  # fmt: skip
    body = os.urandom(2_000_000)
    for port in (NGINX, UPLOADS):  # the first answers at once, and need not be sent it all
        status = run(
            "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@-", *more, f"{site[port]}/",
            stdin=body,
        )  # fmt: skip
        assert status == "200"
    taken = web.folder / f"nginx-{NGINX}-body"
    assert body in [path.read_bytes() for path in taken.iterdir()]


def test_curl_and_nghttp_over_http2(run: Run, site: dict[int, str], web: Pod) -> None:
    url = site[NGINX2]
    shown = run("curl", "-sS", "--http2-prior-knowledge", "-w", " %{http_version}", f"{url}/")
    assert shown == "a page 2"
    told = run("nghttp", "-v", "-m", "20", f"{url}/files/big")
    assert told.count(":status: 200") == 20
    assert run("nghttp", f"{url}/") == "a page"


def test_curl_is_not_upgraded_to_http2(run: Run, site: dict[int, str]) -> None:
    """curl --http2 offers h2c; it is answered over HTTP/1, as a server may."""
    assert run("curl", "-sS", "--http2", "-w", " %{http_version}", f"{site[NGINX]}/") == "a page 1.1"


def test_s_client_sees_the_applications_own_tls(mesh: Mesh, run: Run, web: Pod) -> None:
    """What is TLS already is carried as it is: the certificate that arrives is the application's."""
    authority = trustme.CA()
    leaf = authority.issue_cert("app.example")
    files = {name: web.folder / f"{name}.pem" for name in ("ca", "chain", "key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    leaf.private_key_pem.write_to_path(str(files["key"]))
    files["chain"].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    serving = ["openssl", "s_server", "-quiet", "-accept", str(TLS), "-cert", str(files["chain"]), "-key",
               str(files["key"]), "-www"]  # fmt: skip
    with Server(web, TLS, *serving):
        host, port = mesh.service("tls", 443, [web], target=TLS)
        shown = run(
            "openssl", "s_client", "-connect", f"{host}:{port}", "-servername", "app.example", "-CAfile",
            str(files["ca"]), "-verify_return_error", "-verify_hostname", "app.example", "-ign_eof",
            stdin=b"GET / HTTP/1.0\r\n\r\n",
        )  # fmt: skip
    assert "Verify return code: 0 (ok)" in shown
    assert "HTTP/1.0 200 ok" in shown


def test_grpcio_on_both_ends(mesh: Mesh, run: Run, client: Pod, web: Pod) -> None:
    module = ("-m", "tests.kit.greeter")
    with Server(web, GREETER, sys.executable, *module, "serve", str(GREETER)):
        host, port = mesh.service("greeter", 80, [web], target=GREETER)
        hello, numbers, refused = run(sys.executable, *module, "call", f"{host}:{port}", "200").splitlines()
    assert hello == f"HELLO {client.identity}"
    assert numbers.split() == [str(number) for number in range(1000)]
    assert refused == "FAILED_PRECONDITION a bad word"
    counted = {"direction": "outbound", "target_port": str(GREETER)}
    assert client.proxy.metric("response_total", grpc_status="0", **counted) == 201
    assert client.proxy.metric("response_total", grpc_status="9", **counted) == 1


def test_redis_through_an_opaque_port(mesh: Mesh, run: Run, client: Pod) -> None:
    """The client waits for nothing, the server's answers come in any size, one connection is subscribed for long."""
    store = mesh.pod("redis")
    command = ["redis-server", "--port", str(REDIS), "--bind", "*", "-::*", "--protected-mode", "no", "--save", "",
               "--dir", str(store.folder)]  # fmt: skip
    with Server(store, REDIS, *command):
        host, port = mesh.service("redis", REDIS, [store], target=REDIS)
        redis = ("redis-cli", "-h", host, "-p", str(port))
        assert run(*redis, "SET", "key", "value").strip() == "OK"
        assert run(*redis, "GET", "key").strip() == "value"
        big = b"x" * 1_000_000
        assert run(*redis, "-x", "SET", "big", stdin=big).strip() == "OK"
        assert run(*redis, "GETRANGE", "big", "999990", "-1").strip() == "x" * 10
        # In bulk: a hundred thousand commands in one stream, as many answers in another.
        many = b"".join(b"INCR number\r\n" for _ in range(100_000))
        said = run(*redis, "--pipe", stdin=many)
        assert re.search(r"errors: 0, replies: 100000", said), said
        assert run(*redis, "GET", "number").strip() == "100000"
    told = {"target_port": str(REDIS), "tls": "true", "peer": "dst"}
    assert client.proxy.metric("tcp_open_total", direction="outbound", server_id=store.identity, **told) >= 5
    assert store.proxy.metric("tcp_read_bytes_total", direction="inbound", client_id=client.identity) > len(big)
