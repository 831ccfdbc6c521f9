#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Ask for disk space before it is used: a build that fails after ten minutes says nothing that could not be known."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: free_space
short_description: Fail where a disk cannot hold what is about to be written
version_added: "0.1.0"
description:
  - Changes nothing. What folders on one file system want is added up; a folder that is not there yet counts as the
    nearest one above it.
options:
  wanted:
    description: What is about to be written.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: The folder that it goes into.
        type: path
        required: true
      gib:
        description: How much it is.
        type: float
        required: true
      setting:
        description: The environment variable that moves the folder elsewhere.
        type: str
        required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Ask for room
  tulle.mesh.free_space:
    wanted:
      - {path: /var/cache/example, gib: 6, setting: EXAMPLE_CACHE}
"""

RETURN = r"""
free:
  description: The free space in GiB, for each folder.
  type: dict
  returned: success
"""

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def there(path: str) -> Path:
    """The folder, or the nearest above it that exists: on its file system it will be made."""
    return next(place for place in (Path(path), *Path(path).parents) if place.is_dir())


def problems(wanted: list[dict]) -> list[str]:
    by_device: dict[int, list[dict]] = {}
    for one in wanted:
        by_device.setdefault(os.stat(there(one["path"])).st_dev, []).append(one)
    found = []
    for group in by_device.values():
        free = shutil.disk_usage(there(group[0]["path"])).free / 2**30
        needed = sum(one["gib"] for one in group)
        if free < needed:
            places = " and ".join(one["path"] for one in group)
            settings = " or ".join(one["setting"] for one in group)
            found.append(
                f"{free:.1f} GiB free at {places}, {needed:g} GiB needed: free some, or set {settings} to a folder on "
                "a larger disk"
            )
    return found


def main() -> None:
    wanted = {
        "path": {"type": "path", "required": True},
        "gib": {"type": "float", "required": True},
        "setting": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={"wanted": {"type": "list", "elements": "dict", "required": True, "options": wanted}},
        supports_check_mode=True,
    )
    found = problems(module.params["wanted"])
    if found:
        module.fail_json(msg="; ".join(found))
    free = {
        one["path"]: round(shutil.disk_usage(there(one["path"])).free / 2**30, 1) for one in module.params["wanted"]
    }
    module.exit_json(changed=False, free=free)


if __name__ == "__main__":
    main()
