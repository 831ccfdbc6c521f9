"""What the conformance suite stands on: a mesh of its own, made as the mesh suite makes it, and the Go programs."""

import subprocess

import pytest

from tests.kit import tools
from tests.mesh.conftest import client, line, lines, mesh, outsider, web

__all__ = ["client", "line", "lines", "mesh", "outsider", "web"]


@pytest.fixture(scope="session")
def go_tools() -> None:
    """Skip loudly where the Go programs cannot be had."""
    try:
        tools.tool("h2spec")
    except (tools.ToolError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"SKIPPED LOUDLY: the Go programs cannot be built: {error}")
