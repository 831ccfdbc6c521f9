"""What the collection's tests share: loading scripts that are no package, running playbooks, and sandboxes.

A sandbox is a network namespace with folders of its own: what a playbook does in it is gone when it ends.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # type: ignore[import-untyped]

from tests.kit.tools import cache_folder

ROOT: Final = Path(__file__).parents[2]
COLLECTION: Final = ROOT / "ansible"
BIN: Final = Path(sys.executable).parent
PLAYBOOK_SECONDS: Final = 400.0


def load(path: str, name: str = "") -> ModuleType:
    """A script below `ansible/`, as a module; one that imports its neighbours finds them."""
    file = COLLECTION / path
    spec = importlib.util.spec_from_file_location(name or f"tulle_ansible_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


def environment(**more: str) -> dict[str, str]:
    """As `make` calls it: Ansible's own folders are below the user's cache, whatever folder a test gives the roles."""
    cache = cache_folder() / "ansible"
    folders = {"ANSIBLE_HOME": cache, "ANSIBLE_REMOTE_TEMP": cache / "tmp", "ANSIBLE_ASYNC_DIR": cache / "async"}
    settings = {"ANSIBLE_CONFIG": str(COLLECTION / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return {**os.environ, **settings, **{name: str(path) for name, path in folders.items()}, **more}


def playbook(
    name: str | Path, *arguments: str, before: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the collection, or one of the test's own, behind an optional command such as `unshare`."""
    path = name if isinstance(name, Path) else COLLECTION / "playbooks" / name
    command = [*before, str(BIN / "ansible-playbook"), str(path), *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PLAYBOOK_SECONDS,
        check=False,
    )


class _Ended(Exception):
    """A module has given its result."""


class FakeModule:
    """Stands for the class around a module: checks its arguments with Ansible's code, and keeps the result."""

    arguments: dict[str, Any]
    result: dict[str, Any]

    def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool = False) -> None:
        checked = ArgumentSpecValidator(argument_spec).validate({**self.arguments["given"]})
        self.check_mode: bool = self.arguments["check"]
        self.params = checked.validated_parameters
        if checked.error_messages:
            self.fail_json(msg="; ".join(checked.error_messages))

    def exit_json(self, **result: Any) -> None:
        type(self).result = result
        raise _Ended

    def fail_json(self, **result: Any) -> None:
        self.exit_json(failed=True, **result)

    def get_bin_path(self, name: str, opt_dirs: list[str]) -> str | None:
        return shutil.which(name, path=os.pathsep.join(opt_dirs))

    def run_command(self, argv: list[str], **_: Any) -> tuple[int, str, str]:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def module(name: str, given: dict[str, Any], check: bool = False) -> dict[str, Any]:
    """Run one module of the collection in this process, and return its result."""
    loaded = load(f"plugins/modules/{name}.py")
    FakeModule.arguments = {"given": given, "check": check}
    loaded.AnsibleModule = FakeModule  # type: ignore[attr-defined]
    try:
        loaded.main()
    except _Ended:
        return FakeModule.result
    raise AssertionError(f"{name} gave no result")


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a playbook changed something, from its recap."""
    recap = next(line for line in done.stdout.splitlines() if line.startswith("localhost ") and "changed=" in line)
    return int(recap.split("changed=")[1].split()[0])


def message(done: subprocess.CompletedProcess[str]) -> str:
    """All that a playbook said, with line breaks of its own making taken out."""
    return " ".join((done.stdout + done.stderr).split())


def may_sandbox() -> str:
    """Why no sandbox can be made here; empty where one can."""
    if os.geteuid() != 0:
        return "sandboxes need root"
    if shutil.which("unshare") is None:
        return "sandboxes need util-linux"
    done = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "this machine makes no namespaces"
