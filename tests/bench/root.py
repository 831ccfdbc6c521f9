"""The image's root, mounted for the time of a run: what is measured is what a pod runs. Does I/O."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proxy.api import labels
from tests.kit.sidecar import ROOT, as_proxy_user

IMAGES: Final = ROOT / "build" / "images.json"
INSIDE: Final = "/mnt"
"""Where the mesh's folder (trust bundle, tokens) is seen inside the root."""


class Runtime:
    """How proxies are started: from an image's root, or from the working tree."""

    def __init__(self, description: str, root: Path | None) -> None:
        self.description = description
        self.root = root

    def command(self, folder: Path) -> list[str]:
        """The command line; the process started is the proxy itself in the end."""
        if self.root is None:
            return [*as_proxy_user(), sys.executable, "-m", "proxy"]
        script = (
            'mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --bind "$2" "$1/mnt" && '
            f'exec chroot --userspec={labels.PROXY_UID}:{labels.PROXY_UID} "$1" /usr/bin/python3 -m proxy'
        )
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(self.root), str(folder)]

    def path(self, folder: Path, path: Path) -> str:
        """How the proxy sees a file of the mesh's folder."""
        return str(path) if self.root is None else f"{INSIDE}/{path.relative_to(folder)}"


def state_folder() -> Path:
    """Where the local cluster keeps its state."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return Path(os.environ.get("TULLE_STATE") or base / "tulle")


@contextmanager
def runtime(from_tree: bool = False) -> Iterator[Runtime]:
    """The root of the built proxy image; the working tree only where that was asked for. Raises RuntimeError."""
    socket = state_folder() / "run" / "containerd" / "containerd.sock"
    problem = "no image is built: run `make images`"
    if from_tree:
        print(
            "NOT FROM THE IMAGE: --tree was given. The proxy runs from the working tree.", file=sys.stderr, flush=True
        )
        yield Runtime("working tree", None)
        return
    if IMAGES.exists() and socket.exists():
        reference = json.loads(IMAGES.read_text())["proxy"]
        ctr = ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images"]
        target = Path(tempfile.mkdtemp(prefix="tulle-root-"))
        done = subprocess.run(
            [*ctr, "mount", "--rw", reference, str(target)], capture_output=True, text=True, timeout=60
        )
        if done.returncode == 0:
            try:
                yield Runtime(f"image {reference}", target)
            finally:
                subprocess.run([*ctr, "unmount", "--rm", str(target)], capture_output=True, timeout=60)
                target.rmdir()
            return
        target.rmdir()
        problem = done.stderr.strip()
    raise RuntimeError(f"the image's root cannot be mounted: {problem}, or measure the working tree with --tree")
