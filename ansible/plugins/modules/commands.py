#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Find programs on a machine, and the packages of those that are not there."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: commands
short_description: Find programs, and name the packages of those that are missing
version_added: "0.1.0"
description:
  - Only what is missing is to be installed, so that a machine keeps the versions it has, whatever packages they are
    from.
options:
  wanted:
    description: For each program, the package that has it. Programs are looked for on the path and in the folders of
      administrators' tools.
    type: dict
    required: true
  folders:
    description: Folders to look in besides.
    type: list
    elements: path
    default: []
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Look for a container runtime
  tulle.mesh.commands:
    wanted: {runc: runc, containerd: containerd}
"""

RETURN = r"""
found:
  description: The programs that are there, and where.
  type: dict
  returned: always
packages:
  description: The packages of the others.
  type: list
  elements: str
  returned: always
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule

ADMINISTRATORS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wanted": {"type": "dict", "required": True},
            "folders": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *ADMINISTRATORS, *module.params["folders"]])
    places = {name: shutil.which(name, path=path) for name in module.params["wanted"]}
    found = {name: place for name, place in places.items() if place}
    packages = sorted({package for name, package in module.params["wanted"].items() if name not in found})
    module.exit_json(changed=False, found=found, packages=packages)


if __name__ == "__main__":
    main()
