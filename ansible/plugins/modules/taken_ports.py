#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Find out which ports a machine has no room for, and who has them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: taken_ports
short_description: Find TCP ports on which somebody listens, and who
version_added: "0.1.0"
description:
  - Reads the kernel's own tables, so that nothing is opened and nothing is missed, whatever address it is on.
options:
  ports:
    description: The ports that are wanted.
    type: list
    elements: int
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Look who has our ports
  tulle.mesh.taken_ports:
    ports: [4140, 4143]
  register: ports
"""

RETURN = r"""
taken:
  description: For each port that is taken, who has it, as far as can be seen.
  type: dict
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it."""


def listening(tables: str = "/proc/net") -> dict[int, str]:
    """Each port that is listened on, and the inode of its socket."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            with open(os.path.join(tables, name)) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == LISTEN:
                found[int(columns[1].rpartition(":")[2], 16)] = columns[9]
    return found


def owners(inodes: set[str]) -> dict[str, str]:
    """The process that holds each socket, where it is one that can be seen."""
    found: dict[str, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                inode = target[8:-1] if target.startswith("socket:[") else ""
                if inode in inodes:
                    with open(f"/proc/{pid}/comm") as file:
                        found[inode] = f"process {pid} ({file.read().strip()})"
        except OSError:
            continue
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={"ports": {"type": "list", "elements": "int", "required": True}}, supports_check_mode=True
    )
    there = listening()
    wanted = {port: there[port] for port in module.params["ports"] if port in there}
    who = owners(set(wanted.values()))
    taken = {str(port): who.get(inode, "a process that cannot be seen") for port, inode in wanted.items()}
    module.exit_json(changed=False, taken=taken)


if __name__ == "__main__":
    main()
