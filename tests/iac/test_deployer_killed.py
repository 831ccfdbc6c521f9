"""A deployment killed with SIGKILL at each of its step boundaries in turn: the next one finishes, with one anchor and
no orphan.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.iac.killing import UP
from tests.iac.kit import ROOT
from tests.iac.tiny import target

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(1500)
def test_killed_at_every_boundary_the_next_run_finishes(tmp_path: Path) -> None:
    if not Path(target().kubeconfig).is_file():
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("no local cluster")
        pytest.skip("no local cluster; `make up` starts it")
    command = [sys.executable, "-m", "tests.iac.killing", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout)
    assert len(results) == len(UP) == 18
    assert not [result for result in results if result["problems"]]
