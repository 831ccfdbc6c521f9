"""A machine outside the cluster: it joins once, by a process of its own, and goes on with what it kept."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from proxy.control.keypair import KeyPair
from proxy.control.machine import KeptError, Machine
from proxy.control.messages import Certificate
from tests.unit.test_control_identity import Bench, until
from tests.unit.test_identity_machines import NAME as MACHINE
from tests.unit.test_identity_machines import World, world

__all__ = ["world"]
PAIR = KeyPair(b"key", b"csr")


class TestKept:
    """The file: whole, private, and named where it cannot be used."""

    def test_what_is_kept_is_read(self, tmp_path: Path) -> None:
        machine = Machine("vm", str(tmp_path / "identity"))
        certificate = Certificate((b"leaf", b"issuer"), 2**33)
        machine.keep(PAIR, certificate)
        machine.keep(PAIR, certificate)
        assert (machine.read().pair.key, machine.read().pair.request) == (b"key", b"csr")
        assert machine.read().certificate == certificate
        assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o600
        assert [each.name for each in tmp_path.iterdir()] == ["identity"]

    def test_a_machine_that_has_not_joined_is_told_to(self, tmp_path: Path) -> None:
        with pytest.raises(KeptError, match="is not there: join first"):
            Machine("vm", str(tmp_path / "identity")).read()

    @pytest.mark.parametrize("content", [b"", b"\0\0\0\x01a", b"junk", b"\0\0\0\x01a" * 3])
    def test_what_cannot_be_used_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "identity").write_bytes(content)
        with pytest.raises(KeptError, match=r"identity (cannot be used|holds no certificate).*join again"):
            Machine("vm", str(tmp_path / "identity")).read()


class TestRenewal:
    """The life of a machine's certificates, with an issuer that the test plays."""

    async def test_it_is_ready_with_what_it_kept_and_renews_by_it(self, tmp_path: Path) -> None:
        machine = Machine("vm", str(tmp_path / "identity"))
        bench = Bench(tmp_path, machine)
        machine.keep(PAIR, Certificate((b"kept", b"issuer"), int(bench.issuer.now) + 1))
        async with bench:
            await until(lambda: bool(bench.issuer.requests))
            (request,) = bench.issuer.requests[:1]
            assert bench.issuer.loaded[0][0] == [b"kept", b"issuer"]
            assert (request.external_workload, request.token) == ("vm", b"")
            assert list(request.current_chain) == [b"kept", b"issuer"]
            await until(lambda: machine.read().certificate.chain[0] == b"leaf 1")

    async def test_without_a_control_plane_it_starts_all_the_same(self, tmp_path: Path) -> None:
        machine = Machine("vm", str(tmp_path / "identity"))
        bench = Bench(tmp_path, machine)
        bench.issuer.errors = [OSError("away")] * 1000
        machine.keep(PAIR, Certificate((b"kept",), int(bench.issuer.now) + 500))
        async with bench:
            await bench.identity.wait_ready()
        assert machine.read().certificate.chain == (b"kept",)

    async def test_what_is_over_makes_nobody_ready(self, tmp_path: Path) -> None:
        machine = Machine("vm", str(tmp_path / "identity"))
        bench = Bench(tmp_path, machine)
        bench.issuer.errors = [OSError("expired")] * 1000
        machine.keep(PAIR, Certificate((b"kept",), int(bench.issuer.now) - 1))
        async with bench:
            await until(lambda: len(bench.issuer.requests) > 1)
            assert not bench.identity.is_ready


async def joining(folder: Path, port: int, token: bytes, *arguments: str) -> tuple[int, str]:
    """Run the process that joins, against identity on loopback; its exit code and all it said."""
    environment = {
        **os.environ,
        "TULLE_PROXY_POD_IPS": "192.0.2.10",
        "TULLE_PROXY_POD_NAME": "vm",
        "TULLE_PROXY_POD_NAMESPACE": "demo",
        "TULLE_PROXY_SERVICE_ACCOUNT": "machine",
        "TULLE_PROXY_EXTERNAL_WORKLOAD": "vm",
        "TULLE_PROXY_IDENTITY_FILE": str(folder / "identity"),
        "TULLE_PROXY_IDENTITY_SVC_ADDR": f"127.0.0.1:{port}",
        "TULLE_PROXY_TRUST_BUNDLE_FILE": str(folder / "bundle"),
    }
    command = [sys.executable, "-m", "proxy.joining", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=-1, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(token), 60)
    return process.returncode or 0, said.decode()


class TestJoining:
    """The process, and identity itself behind a real connection."""

    @pytest.fixture
    async def joined(self, world: World, tmp_path: Path) -> tuple[World, Path]:
        code, said = await joining(tmp_path, world.port, world.offer())
        assert (code, said.splitlines()[-1]) == (0, f"joined as {MACHINE}"), said
        return world, tmp_path

    async def test_a_token_becomes_an_identity_that_is_kept(self, joined: tuple[World, Path]) -> None:
        world, folder = joined
        code, said = await joining(folder, world.port, b"", "--check")
        assert (code, said.startswith("certificate valid for 86")) == (0, True), said
        kept = Machine("vm", str(folder / "identity")).read()
        assert MACHINE.encode() in kept.certificate.chain[0]

    async def test_a_token_that_was_used_is_refused_and_changes_nothing(self, world: World, tmp_path: Path) -> None:
        token = world.offer()
        assert (await joining(tmp_path, world.port, token))[0] == 0
        before = (tmp_path / "identity").read_bytes()
        code, said = await joining(tmp_path, world.port, token)
        assert (code, "was used already; make another one" in said) == (2, True), said
        assert token.decode() not in said
        assert (tmp_path / "identity").read_bytes() == before

    async def test_a_wrong_token_is_refused(self, world: World, tmp_path: Path) -> None:
        world.offer()
        code, said = await joining(tmp_path, world.port, b"guess")
        assert (code, "is not the join token of ExternalWorkload demo/vm" in said) == (2, True), said
        assert not (tmp_path / "identity").exists()

    async def test_identity_that_does_not_answer_is_named(self, world: World, tmp_path: Path) -> None:
        code, said = await joining(tmp_path, 1, b"token")
        assert (code, "identity at 127.0.0.1:1 cannot be asked from here" in said) == (1, True), said

