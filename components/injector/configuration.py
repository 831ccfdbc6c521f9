"""The configuration file, re-read while running: does I/O. One that cannot be used is refused loudly, and the one in
use is kept.
"""

import asyncio
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter

from components.injector.config import ConfigError, InjectorConfig, decode_config
from components.serving import StartupError

POLL_SECONDS: Final = 5.0

LOADS = Counter("tulle_injector_config_loads_total", "Readings of a changed configuration", ["result"])


class ConfigFile:
    """The configuration in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = b""
        self._log = structlog.get_logger()
        try:
            self._seen = path.read_bytes()
            self.current: InjectorConfig = decode_config(self._seen)
        except OSError as error:
            raise StartupError(f"--config {path}: {error.strerror}; the stack writes it as a ConfigMap") from error
        except ConfigError as error:
            raise StartupError(f"--config {path}: {error}") from error

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.read()

    def read(self) -> None:
        """Read it once, and take it if it is new and usable."""
        try:
            content = self._path.read_bytes()
            if content == self._seen:
                return
            self._seen = content
            self.current = decode_config(content)
        except (OSError, ConfigError) as error:
            LOADS.labels("refused").inc()
            self._log.error("config_refused", path=str(self._path), error=str(error), note="the one in use is kept")
            return
        LOADS.labels("loaded").inc()
        self._log.info("config_loaded", path=str(self._path))
