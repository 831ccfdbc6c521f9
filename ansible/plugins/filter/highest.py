# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""Several tables of least values as one: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: highest
short_description: Of several tables of numbers, the highest of each
version_added: "0.1.0"
description:
  - Puts tables together; a name that several of them have keeps its highest value.
options:
  _input:
    description: The tables.
    type: list
    elements: dict
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Put two tables of floors together
  ansible.builtin.debug:
    msg: "{{ [{'a': 1}, {'a': 2, 'b': 1}] | tulle.mesh.highest }}"
"""

RETURN = r"""
_value:
  description: Each name with its highest value.
  type: dict
"""


def highest(tables: list[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in tables:
        for name, value in table.items():
            found[name] = max(int(value), found.get(name, int(value)))
    return found


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Any]:
        return {"highest": highest}
