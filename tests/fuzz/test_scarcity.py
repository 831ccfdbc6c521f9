"""When memory ends: whichever allocation fails, the process lives and says MemoryError."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_any_allocation_may_fail(tmp_path: Path) -> None:
    library = tmp_path / "scarcity.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "scarcity.c")], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.scarcity", str(library)],
        cwd=HERE.parent.parent, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert set(counts) == {"head_in_pieces", "served", "asked", "kept"}
    assert all(int(count) >= 3 for count in counts.values()), counts
