"""The mesh of the local cluster as its users change it: by the command, in processes of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self

from components.deploy.cluster import Cluster
from components.deploy.ledger import Ledger
from components.forms import IMAGES
from tests.iac.kit import ROOT
from tests.iac.tiny import target as local

Json = dict[str, Any]
Config = Mapping[str, Any]
SECONDS = 300.0


class Stack:
    """What `make up` made. `config` in what follows is what differs from the stack's file, by key."""

    def __init__(self) -> None:
        self.cluster = Cluster(local())
        self.images: dict[str, str] = {
            name: Ledger(self.cluster, "tulle", "local").outputs["images"][name] for name in IMAGES
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    def is_quiet(self, config: Config | None = None) -> bool:
        """Whether a deployment would change nothing."""
        done = self.run("preview", "-o", "json", config=config)
        assert done.returncode == 0, done.stderr
        return {step["action"] for step in json.loads(done.stdout)["steps"]} == {"same"}

    def up(self, config: Config | None = None) -> None:
        """Deploy."""
        done = self.run("up", "--yes", config=config)
        assert done.returncode == 0, done.stdout + done.stderr

    def refused(self, config: Config | None = None) -> str:
        """Why a deployment may not be made; a preview says so already."""
        done = self.run("preview", config=config)
        assert done.returncode != 0, done.stdout
        return " ".join(done.stderr.split())

    def run(self, command: str, *options: str, config: Config | None = None) -> subprocess.CompletedProcess[str]:
        """`tulle COMMAND` for this stack."""
        given = {"images.refs": self.images, **(config or {})}
        argv = [sys.executable, "-m", "components.cli.main", command, "--stack", "local", *options]
        argv += [text for key, value in given.items() for text in ("-c", f"{key}={json.dumps(value)}")]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
