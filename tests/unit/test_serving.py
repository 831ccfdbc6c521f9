"""What control-plane processes share: the admin port's three paths, start-up errors in one line, an orderly end."""

import asyncio
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from components import serving as module
from components.serving import AdminServer, StartupError, parse_address, parse_duration
from tests.kit.waiting import slowness


class Admin:
    """An admin port and somebody who asks it."""

    def __init__(self) -> None:
        self.missing: str | None = "caches"
        registry = CollectorRegistry()
        Counter("tulle_test", "A test", registry=registry).inc()
        self.server = AdminServer("127.0.0.1:0", lambda: self.missing, registry)

    async def send(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    found = Admin()
    await found.server.start()
    yield found
    await found.server.close()


async def test_live_ready_and_metrics(admin: Admin) -> None:
    assert await admin.get("/live") == (200, "live\n")
    assert await admin.get("/ready") == (503, "not ready: caches\n")
    admin.missing = None
    assert await admin.get("/ready?verbose") == (200, "ready\n")
    status, body = await admin.get("/metrics")
    assert (status, "tulle_test_total 1.0" in body) == (200, True)
    assert await admin.get("/live", "HEAD") == (200, "")


async def test_everything_else_is_refused(admin: Admin) -> None:
    assert (await admin.get("/debug"))[0] == 404
    assert (await admin.get("/live", "POST"))[0] == 405
    assert (await admin.send(b"junk\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert await admin.send(b"GET /" + b"x" * 20_000) == b""


async def test_a_caller_that_says_nothing_is_let_go(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    assert await admin.send(b"GET /live") == b""


async def test_callers_are_bounded(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.server.port)
    await asyncio.sleep(0.05)
    assert await admin.send(b"") == b""
    writer.write(b"GET /live HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"live\n")
    writer.close()


async def test_an_address_in_use_is_one_clear_error(admin: Admin) -> None:
    with pytest.raises(StartupError, match=f"--admin 127.0.0.1:{admin.server.port}.*another address"):
        await AdminServer(f"127.0.0.1:{admin.server.port}", lambda: None).start()


def test_addresses_and_durations_of_flags() -> None:
    assert parse_address("[::]:80", "--listen") == ("::", 80)
    assert parse_address("0.0.0.0:9990", "--listen") == ("0.0.0.0", 9990)
    assert parse_duration("24h", "--leaf-lifetime") == 86_400_000
    for bad in ("", "host", "host:", "host:x", "host:70000"):
        with pytest.raises(StartupError, match="--listen"):
            parse_address(bad, "--listen")
    for bad in ("", "24", "1.5h", "-1s", "1w"):
        with pytest.raises(StartupError, match="--leaf-lifetime"):
            parse_duration(bad, "--leaf-lifetime")


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


def start(component: str, folder: Path, *arguments: str, kubeconfig: bool = True) -> "subprocess.Popen[str]":
    """A control-plane process, with a cluster that does not answer or with none."""
    path = folder / "kubeconfig"
    if kubeconfig:
        path.write_text(json.dumps(KUBECONFIG))
    environment = {**os.environ, "KUBECONFIG": str(path), "HOME": str(folder)}
    command = [sys.executable, "-m", f"components.{component}", "--admin", "127.0.0.1:0", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("component", "arguments", "words"),
    [
        ("identity", ["--leaf-lifetime", "10s"], "at least 60s"),
        ("identity", ["--leaf-lifetime", "soon"], "--leaf-lifetime 'soon' is not a duration"),
        ("identity", ["--listen", "nowhere"], "--listen 'nowhere' is not an address"),
        ("destination", ["--listen", "0.0.0.0:99999"], "--listen"),
        ("destination", ["--default-opaque-ports", "mysql"], "--default-opaque-ports: 'mysql'"),
        ("injector", ["--config", "/nowhere/config.json"], "--config /nowhere/config.json: No such file"),
    ],
)
async def test_a_start_that_cannot_be_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, component: str, arguments: list[str], words: str
) -> None:
    (tmp_path / "kubeconfig").write_text(json.dumps(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    main = importlib.import_module(f"components.{component}.__main__")
    with pytest.raises(StartupError, match=re.escape(words)):
        await main.serve(main.parse_arguments([*arguments, "--admin", "127.0.0.1:0"]), asyncio.Event())


def test_a_process_that_cannot_start_ends_with_one_line_and_code_64(tmp_path: Path) -> None:
    process = start("identity", tmp_path, "--listen", "127.0.0.1:0", kubeconfig=False)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (64, "")
    (line,) = out.strip().splitlines()
    assert "no cluster" in json.loads(line)["error"]


def test_sigterm_ends_a_process_in_order_though_it_was_never_ready(tmp_path: Path) -> None:
    process = start("destination", tmp_path, "--listen", "127.0.0.1:0")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "started":
            break
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - begun < 10 * slowness()
