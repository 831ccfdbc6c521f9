"""Builds the shim through which Python reaches the HTTP/1 codec and detection."""

from pathlib import Path
from typing import Any

from tests.kit import compiled


def load() -> Any:
    """The shim's module: `read`, `sniff_http`, `sniff_tls`."""
    return compiled.load(Path(__file__).with_name("http1_shim.pyx"), "proxy.wire.http1", "proxy.wire.sniff")
