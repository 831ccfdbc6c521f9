"""A process whose clock is wrong: `clock.c`, preloaded, with an offset that may change while it runs. Does I/O.

A time namespace shifts the monotonic clock alone, and it is the wall clock that certificates are judged by.
"""

import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_suffix(".c")
HOUR: Final = 3600


class Clock:
    """One wall clock that differs; whoever is started with `environ` lives by it."""

    def __init__(self, folder: Path, name: str) -> None:
        library = folder / "clock.so"
        if not library.exists():
            command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            library.chmod(0o755)
        self._file = folder / f"{name}.clock"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        self.environ = {"LD_PRELOAD": str(library), "TULLE_TEST_CLOCK": str(self._file)}

    def command(self, *command: str) -> list[str]:
        """A command line that runs by this clock."""
        return ["env", *(f"{name}={value}" for name, value in self.environ.items()), *command]

    def shift(self, seconds: int) -> None:
        """Be so many seconds ahead of the truth from now on; less than none is behind it."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
