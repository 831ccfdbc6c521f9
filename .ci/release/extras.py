"""What is built beside Python packages and images: the Ansible collection, the Pulumi package, the manifests."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from release import packing
from release.versions import ReleaseError

BIN: Final = Path(sys.executable).parent
PLUGIN: Final = """runtime:
  name: python
  options:
    toolchain: pip
    virtualenv: venv
"""
"""PulumiPlugin.yaml of the package: Pulumi makes the environment of requirements.txt beside it."""
MAIN: Final = '''"""Started by Pulumi where a program uses the package; PulumiPlugin.yaml beside it says how."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from components.package.host import serve

    serve()
'''
DATA: Final = ".data/data/"
UNSEEN: Final = ("-c", "nodes.required=false", "-c", "nodes.report=")
"""A manifest is made before there are nodes whose report a stack could read."""


def collection(source: Path, target: Path, version: str, epoch: int) -> Path:
    """The collection as `ansible-galaxy collection build` makes it, packed anew with fixed times."""
    _run([str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(target), str(source / "ansible")])
    made = target / f"tulle-mesh-{version}.tar.gz"
    packing.repacked(made, epoch)
    return made


def plugin(wheel: Path, requirements: str, target: Path, version: str, epoch: int) -> Path:
    """The component package for Pulumi: the wheel without compiled modules, unpacked, and how to run it.

    The wheel's data files lie beside the packages, where an unpacked installation looks for them.
    """
    members: dict[str, bytes | Path] = {}
    with zipfile.ZipFile(wheel) as opened:
        for name in opened.namelist():
            if not name.startswith(("components/PulumiPlugin", "components/__main__")):
                members[name.partition(DATA)[2] or name] = opened.read(name)
    members |= {"PulumiPlugin.yaml": PLUGIN.encode(), "__main__.py": MAIN.encode()}
    members["requirements.txt"] = requirements.encode()
    # Pulumi's own name for the file of a plugin that runs on every platform is not fixed: the name says what it is.
    made = target / f"pulumi-resource-tulle-v{version}.tar.gz"
    packing.tarball(made, members, epoch)
    return made


def manifest(source: Path, stack: str, refs: dict[str, str], target: Path) -> Path:
    """`tulle render` of a stack with these images, by the code that is released; for nodes that nobody has seen yet."""
    command = [sys.executable, "-m", "components.cli.main", "render", "--stack", stack, *UNSEEN]
    made = target / f"install-{stack}.yaml"
    # The sources stand first, wherever this environment has an editable installation of another tree.
    text = _run([*command, "-c", f"images.refs={json.dumps(refs)}"], folder=source, PYTHONPATH=str(source))
    made.write_text(f"# Tulle, stack {stack}: kubectl apply --server-side -f {made.name}\n{text}")
    return made


def images(source: Path, layout: Path) -> None:
    """Have the role `images` build what has changed, and write all of it to a layout."""
    given = json.dumps({"images_source_dir": str(source), "images_layout": str(layout)})
    layout.parent.mkdir(parents=True, exist_ok=True)
    playbook = source / "ansible/playbooks/images.yml"
    config = str(source / "ansible/ansible.cfg")
    _run([str(BIN / "ansible-playbook"), str(playbook), "-e", given], folder=source, ANSIBLE_CONFIG=config)


def _run(command: list[str], folder: Path | None = None, **more: str) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **more}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(command[:4])} ... failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
