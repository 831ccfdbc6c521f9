"""A machine that does not join the mesh is told why, and is what it was."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.ansible.joining import REFUSES, Identity, beside, lone_machine, undone
from tests.ansible.roots import Root, may_make_roots

REASON: Final = may_make_roots()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "runs")


@pytest.fixture(scope="module")
def machine() -> Iterator[Root]:
    with lone_machine() as one:
        yield one


@pytest.fixture(scope="module")
def identity(machine: Root) -> Iterator[Identity]:
    found = Identity(machine)
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def mesh(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return beside(identity, tmp_path_factory.mktemp("image"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"proxy_host_token": "wrong"}, f"{REFUSES}this is not the join token of ExternalWorkload demo/vm; make one"),
        ({"proxy_host_identity_address": "127.0.0.1:1"}, "identity at 127.0.0.1:1 cannot be asked from here"),
    ],
    ids=["token", "identity"],
)
def test_what_does_not_join_is_undone(machine: Root, mesh: dict[str, Any], wrong: dict[str, Any], words: str) -> None:
    undone(machine, {**mesh, **wrong}, words)
