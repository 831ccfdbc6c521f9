#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""What a machine offers to containers: asked of the kernel and the resolver, by trying where nobody sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_host
short_description: Find out how containers can store layers and resolve names on a machine
version_added: "0.1.0"
description:
  - Makes the folder that is to hold layers, and mounts an overlay in it in a mount namespace that is thrown away. On
    some file systems, an overlay among them, that cannot be done, and layers have to be copied instead.
  - Reads the limits that no process here can raise, because some tools try to and fail.
  - Finds the resolver's real list of servers, because a stub on loopback is not reachable from a pod.
options:
  path:
    description: The folder that is to hold the layers.
    type: path
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Find out how layers are stored
  tulle.mesh.container_host:
    path: /var/lib/example
  register: host
"""

RETURN = r"""
overlay:
  description: Whether an overlay could be mounted.
  type: bool
  returned: always
limits:
  description: The hard limits of open files and processes, for each that has one.
  type: dict
  returned: always
resolver:
  description: The file that lists the name servers.
  type: str
  returned: always
has_servers:
  description: Whether there is a server in it.
  type: bool
  returned: always
"""

import os
import resource
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# The first that is there: systemd-resolved keeps the real list beside the stub that it puts into /etc.
RESOLVERS = ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf")


def overlay_works(module: AnsibleModule, path: str) -> bool:
    folder = tempfile.mkdtemp(prefix=".overlay-", dir=path)
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(folder, name))
        layers = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", layers, f"{folder}/merged"]
        return module.run_command(command)[0] == 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def limits() -> dict[str, int]:
    hard = {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    }
    return {name: limit for name, limit in hard.items() if limit != resource.RLIM_INFINITY}


def has_servers(resolver: Path) -> bool:
    try:
        lines = resolver.read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[:1] == ["nameserver"] for line in lines)


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = module.params["path"]
    missing = not os.path.isdir(path)
    if missing and not module.check_mode:
        os.makedirs(path)
    resolver = next((Path(one) for one in RESOLVERS if os.path.exists(one)), Path(RESOLVERS[-1]))
    works = os.path.isdir(path) and overlay_works(module, path)
    module.exit_json(
        changed=missing, overlay=works, limits=limits(), resolver=str(resolver), has_servers=has_servers(resolver)
    )


if __name__ == "__main__":
    main()
