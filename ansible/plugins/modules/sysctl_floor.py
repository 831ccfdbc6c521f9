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
options:
  floors:
    description: For each setting, the least value it may have. A switch is a setting whose floor is 1.
    type: dict
    required: true
  file:
    description: The file below C(/etc/sysctl.d) that this module writes and nobody else does.
    type: path
    required: true
  root:
    description: Where the kernel shows its settings.
    type: path
    default: /proc/sys
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
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

HEADER = "# Written by Tulle: raised because it was lower, or switched on.\n"


def current(place: Path) -> int | None:
    """The value as it is, or nothing where there is no such setting or it is not one number."""
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        return None


def kept(file: Path) -> dict[str, int]:
    """What an earlier run has raised: no longer low, and to stay in the file all the same."""
    if not file.exists():
        return {}
    pairs = [line.split("=") for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {key.strip(): int(value) for key, value in pairs}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "floors": {"type": "dict", "required": True},
            "file": {"type": "path", "required": True},
            "root": {"type": "path", "default": "/proc/sys"},
        },
        supports_check_mode=True,
    )
    file, root = Path(module.params["file"]), Path(module.params["root"])
    try:
        floors = {key: int(value) for key, value in module.params["floors"].items()}
    except (TypeError, ValueError) as error:
        module.fail_json(msg=f"floors: every value has to be a whole number ({error})")
    places = {key: root / key.replace(".", "/") for key in floors}
    raised = {key: floor for key, floor in floors.items() if (now := current(places[key])) is not None and now < floor}
    if raised and not module.check_mode:
        content = HEADER + "".join(f"{key} = {value}\n" for key, value in sorted({**kept(file), **raised}.items()))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
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
