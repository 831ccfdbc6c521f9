#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Ask the kernel whether an overlay can have its layers in a folder, by mounting one where nobody sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: overlay_probe
short_description: Find out whether overlayfs works in a folder
version_added: "0.1.0"
description:
  - Mounts an overlay in a mount namespace of its own and leaves nothing behind. On some file systems, an overlay among
    them, it cannot be done, and image layers have to be copied instead.
options:
  path:
    description: The folder that is to hold the layers. It must exist.
    type: path
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Find out whether overlayfs works
  tulle.mesh.overlay_probe:
    path: /var/lib/example
  register: overlay
"""

RETURN = r"""
works:
  description: Whether it could be mounted.
  type: bool
  returned: always
reason:
  description: What mount said when it could not.
  type: str
  returned: always
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    if not os.path.isdir(path):
        module.fail_json(msg=f"path: {path} is not a folder; make it first")
    folder = tempfile.mkdtemp(prefix=".overlay-", dir=path)
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(folder, name))
        layers = ",".join(f"{key}dir={folder}/{name}" for key, name in (("lower", "lower"), ("upper", "upper"), ("work", "work")))
        command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", layers, f"{folder}/merged"]
        code, _, complaint = module.run_command(command)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    module.exit_json(changed=False, works=code == 0, reason=complaint.strip())


if __name__ == "__main__":
    main()
