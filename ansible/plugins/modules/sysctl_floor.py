#!/usr/bin/python
# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Raise kernel settings that are too low, now and at boot, and never lower one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sysctl_floor
short_description: Raise kernel settings to a floor, and never lower one
version_added: "0.1.0"
description:
  - Reads each setting, raises it where it is lower than its floor, and writes what it has raised to a file of its own,
    so that it is raised at boot too. A setting that this kernel does not have is left out.
  - The file also says what each setting was. Undone, those go back that nobody has changed since.
options:
  floors:
    description: For each setting, the least value it may have. A switch is a setting whose floor is 1.
    type: dict
    default: {}
  file:
    description: The file below C(/etc/sysctl.d) that this module writes and nobody else does.
    type: path
    required: true
  root:
    description: Where the kernel shows its settings.
    type: path
    default: /proc/sys
  state:
    description: Whether settings are raised, or what was raised is undone.
    type: str
    choices: [present, absent]
    default: present
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Let packets be forwarded
  tulle.mesh.sysctl_floor:
    floors:
      net.ipv4.ip_forward: 1
    file: /etc/sysctl.d/90-example.conf
"""

RETURN = r"""
raised:
  description: The settings that were too low, and what each is now.
  type: dict
  returned: always
lowered:
  description: The settings that went back, and what each is now.
  type: dict
  returned: if undone
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

HEADER = "# Written by Tulle: raised because it was lower, or switched on.\n"
ENTRY = re.compile(r"(?:# (?P<of>\S+) was (?P<was>\d+)\n)?(?P<key>[^#\s=]+) *= *(?P<value>\d+)")


def current(place: Path) -> int | None:
    """The value as it is, or nothing where there is no such setting or it is not one number."""
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        return None


def kept(file: Path) -> dict[str, tuple[int, int | None]]:
    """What an earlier run has raised, and from what: no longer low, and to stay in the file all the same."""
    if not file.exists():
        return {}
    found = ENTRY.finditer(file.read_text())
    return {each["key"]: (int(each["value"]), int(each["was"]) if each["was"] else None) for each in found}


def text(entries: dict[str, tuple[int, int | None]]) -> str:
    """The file: each setting, and above it what it was."""
    lines = [HEADER]
    for key, (value, was) in sorted(entries.items()):
        lines += [f"# {key} was {was}\n"] if was is not None else []
        lines.append(f"{key} = {value}\n")
    return "".join(lines)


def undo(module: AnsibleModule, file: Path, root: Path) -> None:
    """Put back what was raised and is still as it was raised; the file goes."""
    entries = kept(file)
    lowered = {}
    for key, (value, was) in entries.items():
        place = root / key.replace(".", "/")
        if was is not None and current(place) == value:
            lowered[key] = was
            if not module.check_mode:
                place.write_text(f"{was}\n")
    there = file.exists()
    if there and not module.check_mode:
        file.unlink()
    module.exit_json(changed=there, raised={}, lowered=lowered)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "floors": {"type": "dict", "default": {}},
            "file": {"type": "path", "required": True},
            "root": {"type": "path", "default": "/proc/sys"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    file, root = Path(module.params["file"]), Path(module.params["root"])
    if module.params["state"] == "absent":
        undo(module, file, root)
        return
    try:
        floors = {key: int(value) for key, value in module.params["floors"].items()}
    except (TypeError, ValueError) as error:
        module.fail_json(msg=f"floors: every value has to be a whole number ({error})")
    places = {key: root / key.replace(".", "/") for key in floors}
    before = {key: now for key, place in places.items() if (now := current(place)) is not None}
    raised = {key: floor for key, floor in floors.items() if key in before and before[key] < floor}
    if raised and not module.check_mode:
        entries = kept(file)
        entries |= {key: (value, entries.get(key, (0, before[key]))[1]) for key, value in raised.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text(entries))
        for key, value in raised.items():
            try:
                places[key].write_text(f"{value}\n")
            except OSError as error:
                module.fail_json(
                    msg=f"{key}: cannot be set to {value} ({error.strerror}); set it on the machine itself"
                )
    module.exit_json(changed=bool(raised), raised=raised)


if __name__ == "__main__":
    main()
