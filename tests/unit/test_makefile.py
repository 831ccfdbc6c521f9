"""The Makefile: whatever it is asked for, its recipes are shell. Nothing of them is run."""

import subprocess

import pytest

from tests.kit.sidecar import ROOT

CALLS = [
    ["up"],
    ["up", "CLUSTER=cluster_port_api=7443"],
    ["up", "CONTEXT=other", "REGISTRY=registry.example/tulle", "STACK=dev"],
    ["up", "CONTEXT=other", "REFS="],
    ["images"],
    ["images", "ARCHIVE=build/images.tar", "ENGINE=podman"],
    ["push", "REGISTRY=registry.example/tulle"],
    ["release"],
    ["release", "VERSION=0.2.0", "REGISTRY=registry.example/tulle", "DRY=1"],
    ["version", "VERSION=0.2.0"],
    ["down"],
    ["down", "CONTEXT=other"],
    ["check", "iac-check", "test", "fuzz", "sanitize", "bench", "soak", "lock", "proto", "clean", "help"],
]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_recipe_is_shell(call: list[str]) -> None:
    told = subprocess.run(["make", "--dry-run", *call], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip()
    read = subprocess.run(["sh", "-n"], input=told.stdout, capture_output=True, text=True, timeout=60)
    assert read.returncode == 0, f"{read.stderr}\n{told.stdout}"
