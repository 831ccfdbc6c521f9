#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Keep several small files in one task: a task for each is what makes a playbook that changes nothing slow."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: files
short_description: Keep several small text files and links at once
version_added: "0.1.0"
description:
  - Writes each file that differs, whole or not at all, and makes the folders that are missing.
options:
  directory:
    description: The folder that the names are relative to.
    type: path
    required: true
  files:
    description: For each name, what the file holds.
    type: dict
    default: {}
  links:
    description: For each name, what the symbolic link leads to. A file or a folder in its place is left, and is an
    error. type: dict
    default: {}
  mode:
    description: The mode of every file, in octal.
    type: str
    default: "0644"
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Keep two files
  tulle.mesh.files:
    directory: /etc/example
    files:
      one.conf: "first = 1\n"
      two/three.conf: "{{ lookup('ansible.builtin.template', 'three.conf.j2') }}"
"""

RETURN = r"""
written:
  description: The names of the files and links that were written.
  type: list
  elements: str
  returned: always
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def differs(path: Path, content: str, mode: int) -> bool:
    try:
        return path.read_text() != content or path.stat().st_mode & 0o7777 != mode
    except FileNotFoundError:
        return True


def write(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    # Made anew with its mode, so that a secret is never readable by others for a moment.
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    temporary.replace(path)


def links_elsewhere(path: Path, target: str) -> bool:
    return not path.is_symlink() or os.readlink(path) != target


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "links": {"type": "dict", "default": {}},
            "mode": {"type": "str", "default": "0644"},
        },
        supports_check_mode=True,
    )
    try:
        mode = int(module.params["mode"], 8)
    except ValueError:
        module.fail_json(msg=f"mode: {module.params['mode']!r} is not an octal number such as '0644'")
    directory = Path(module.params["directory"])
    files = {name: str(content) for name, content in module.params["files"].items()}
    links = module.params["links"]
    taken = [
        str(directory / name) for name in links if (directory / name).exists() and not (directory / name).is_symlink()
    ]
    if taken:
        module.fail_json(msg=f"links: {', '.join(taken)} is there and is no link; move it away")
    written = [name for name, content in files.items() if differs(directory / name, content, mode)]
    linked = [name for name, target in links.items() if links_elsewhere(directory / name, target)]
    if not module.check_mode:
        for name in written:
            write(directory / name, files[name], mode)
        for name in linked:
            link(directory / name, links[name])
    module.exit_json(changed=bool(written or linked), written=sorted([*written, *linked]))


if __name__ == "__main__":
    main()
