"""A deployment killed with SIGKILL at each of its step boundaries in turn: the next one finishes, with one anchor and no orphan."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.deploy.cluster import Cluster
from components.deploy.steps import Action
from proxy.api import labels
from tests.iac.kit import ROOT
from tests.iac.test_deployer_cluster import cluster
from tests.iac.tiny import Tiny, target, unique

__all__ = ["cluster"]
pytestmark = pytest.mark.e2e
AT_ONCE = 3
"""Stacks that are tried at the same time."""


def run(tiny: Tiny, verb: str, at: int) -> list[str]:
    """One deployment in a process of its own; where it was killed, or nothing if it came to its end."""
    config = f"config:\n  {tiny.name}:namespace: {tiny.name}\n"
    (tiny.root / "Pulumi.t.yaml").write_text(config)
    command = [sys.executable, "-m", "tests.iac.tiny", str(tiny.root), tiny.name, verb, str(at)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if done.returncode == -9:
        killed: list[str] = json.loads(done.stdout)
        return killed
    assert done.returncode == 0, done.stderr[-3000:]
    return []


def try_boundary(tiny: Tiny, at: int) -> tuple[list[str], list[str], dict[str, str]]:
    """Kill an `up` there, finish it, look, then do the same with `down`."""
    up_at = run(tiny, "up", at)
    problems: dict[str, str] = {}
    api = Cluster(target())
    try:
        tiny.up()
        found = tiny.live(api)
        if len(found) != 7:
            problems["after up"] = ", ".join(found)
        anchors = [each for each in api.list("v1", "Secret", tiny.name) if each["type"] == "kubernetes.io/tls"]
        names = sorted(each["metadata"]["name"] for each in anchors)
        if names != [labels.ISSUER_SECRET, labels.ANCHOR_SECRET]:
            problems["anchors"] = ", ".join(names)
        if not tiny.up().tally.quiet:
            problems["second up"] = str(tiny.plan().as_json())
        down_at = run(tiny, "down", at)
        tiny.down()
        if left := tiny.live(api):
            problems["after down"] = ", ".join(left)
    finally:
        api.close()
    return up_at, down_at, problems


@pytest.fixture
def stacks(tmp_path: Path, cluster: Cluster) -> Iterator[list[Tiny]]:
    made: list[Tiny] = []
    yield made
    for tiny in made:
        if cluster.get(tiny.inventory) is not None:
            tiny.down()


@pytest.mark.timeout(600)
def test_killed_at_every_boundary_the_next_run_finishes(tmp_path: Path, stacks: list[Tiny]) -> None:
    seen_up: list[list[str]] = []
    seen_down: list[list[str]] = []
    at = 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while not seen_up or all(seen_up[-AT_ONCE:]):
            batch = [Tiny.create(tmp_path / str(number), unique()) for number in range(at, at + AT_ONCE)]
            stacks.extend(batch)
            for up_at, down_at, problems in pool.map(try_boundary, batch, range(at, at + AT_ONCE)):
                assert not problems, (up_at, down_at, problems)
                seen_up.append(up_at)
                seen_down.append(down_at)
            at += AT_ONCE
    points = {point for _, point in filter(None, seen_up)}
    assert points == {"intended", "applied", "recorded"}
    assert {point for _, point in filter(None, seen_down)} == {"deleting", "forgotten"}
    # Six resources, three boundaries each: every one was hit.
    assert len([each for each in seen_up if each]) == 18
    assert Action.CREATE
