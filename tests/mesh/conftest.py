"""What the mesh suite stands on: one mesh for all its tests, and lines of conversation over it."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kit.lines import OPAQUE_RANGE, Line
from tests.kit.topology import Mesh, Pod

TOOLS = ("ip", "nsenter", "setpriv", "iptables")

NEEDS = "SKIPPED LOUDLY: a mesh of network namespaces needs root and " + ", ".join(TOOLS)


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """A control plane and a switch; pods are added by whoever needs them."""
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        pytest.skip(NEEDS)
    with Mesh() as made:
        yield made


@pytest.fixture(scope="session")
def client(mesh: Mesh) -> Pod:
    """A meshed caller."""
    return mesh.pod("client")


@pytest.fixture(scope="session")
def web(mesh: Mesh) -> Pod:
    """A meshed pod, whose application is the test."""
    return mesh.pod("web", opaque=OPAQUE_RANGE)


@pytest.fixture(scope="session")
def outsider(mesh: Mesh) -> Pod:
    """A pod without a proxy."""
    return mesh.pod("outsider", meshed=False)


@pytest.fixture
def lines(mesh: Mesh) -> Iterator[Callable[..., Line]]:
    """Makes lines, and closes them after the test."""
    made: list[Line] = []

    def line(client: Pod, server: Pod, **options: Any) -> Line:
        made.append(Line(mesh, client, server, **options))
        return made[-1]

    yield line
    for each in made:
        each.__exit__()


@pytest.fixture
def line(lines: Callable[..., Line], client: Pod, web: Pod) -> Line:
    """From one meshed pod to another."""
    return lines(client, web)
