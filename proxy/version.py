"""The version this tree builds, known without reading package metadata at start. A test compares it with
pyproject.toml."""

from typing import Final

VERSION: Final = "0.1.0"
