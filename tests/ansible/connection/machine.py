"""Ansible's way into a root of `tests/ansible/roots.py`: every command runs in its holder's namespaces and root.

What is said over the connection is bytes on standard input and output, as over SSH; nothing of the roots is shared.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from ansible.errors import AnsibleConnectionFailure  # type: ignore[import-untyped]
from ansible.plugins.connection.local import Connection as Local  # type: ignore[import-untyped]

DOCUMENTATION = r"""
name: machine
short_description: run in the namespaces of a process
description: For the tests of the collection alone.
extends_documentation_fragment: [connection_pipelining]
options:
  machine_pid:
    description: The process that holds the namespaces, as this side numbers it.
    type: int
    vars: [{name: machine_pid}]
  become_success_timeout: {type: int, default: 10, description: As of the connection C(local)., vars: []}
  become_strip_preamble: {type: bool, default: true, description: As of the connection C(local)., vars: []}
"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def entering(pid: int) -> list[str]:
    """What a command line begins with that is to run inside; nothing of this side's environment goes along."""
    environment = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"]
    namespaces = ["--mount", "--net", "--uts", "--pid", "--root", "--wd"]
    return [*environment, "nsenter", "--target", str(pid), *namespaces]


class Connection(Local):  # type: ignore[misc]
    """A machine that is a process's namespaces and root."""

    transport = "tests.machine"
    has_pipelining = True

    def _inside(self, *command: str) -> str:
        pid = self.get_option("machine_pid")
        if not os.path.exists(f"/proc/{pid}/ns/net"):
            raise AnsibleConnectionFailure(f"no route to the machine: process {pid} has ended")
        return shlex.join([*entering(pid), *command])

    def exec_command(self, cmd: str, in_data: Any = None, sudoable: bool = True) -> Any:
        """Run one command line inside."""
        return super().exec_command(self._inside("sh", "-c", cmd), in_data=in_data, sudoable=sudoable)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the machine."""
        with open(in_path, "rb") as file:
            self._pass('cat > "$1"', out_path, file.read())

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the machine."""
        content = self._pass('cat "$1"', in_path, b"")
        with open(out_path, "wb") as file:
            file.write(content)

    def _pass(self, script: str, path: str, content: bytes) -> bytes:
        command = self._inside("sh", "-c", script, "sh", path)
        code, out, complaint = super().exec_command(command, in_data=content, sudoable=False)
        if code:
            raise AnsibleConnectionFailure(f"{path}: {complaint.decode(errors='replace').strip()}")
        return bytes(out)
