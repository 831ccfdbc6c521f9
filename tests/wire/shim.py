"""Builds the shims through which Python reaches the codecs and detection."""

from pathlib import Path
from typing import Any

from tests.kit import compiled


def load() -> Any:
    """HTTP/1 and detection: `read`, `sniff_http`, `sniff_tls`."""
    return compiled.load(Path(__file__).with_name("http1_shim.pyx"), "proxy.wire.http1", "proxy.wire.sniff")


def load_http2() -> Any:
    """HTTP/2 as the data path has it: `Recorder`."""
    modules = ("proxy.wire.http2", "proxy.wire.field_block")
    return compiled.load(Path(__file__).with_name("http2_shim.pyx"), *modules, libraries=("nghttp2",))
