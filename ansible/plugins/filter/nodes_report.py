# Copyright: the Tulle authors. Apache-2.0, see LICENSE at the root of the repository.
"""The report of all nodes that a stack reads: pure. What was found of each host in, one document out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: nodes_report
short_description: What was found of all nodes, as a stack reads it
version_added: "0.1.0"
description:
  - Puts the verdicts of all nodes into one document, with the time and the requirements that they were judged by.
  - A node that could not be reached or looked at is in it as one that is not fit.
options:
  _input:
    description: The variables of all hosts.
    type: dict
    required: true
  names:
    description: The nodes.
    type: list
    elements: str
    required: true
  requirements:
    description: What they were judged by.
    type: dict
    required: true
  stack:
    description: The stack that asked for it; empty for none.
    type: str
    required: true
  time:
    description: The time in UTC, as in 2026-01-02T03:04:05Z.
    type: str
    required: true
author:
  - The Tulle authors (@tulle)
"""

EXAMPLES = r"""
- name: Put a report together
  ansible.builtin.debug:
    msg: "{{ hostvars | tulle.mesh.nodes_report(groups.nodes, {}, 'prod', now(utc=true, fmt='%Y-%m-%dT%H:%M:%SZ')) }}"
"""

RETURN = r"""
_value:
  description: C(schema), C(time), C(stack), C(requirements) (their hash) and C(nodes).
  type: dict
"""

SCHEMA = 1


def of_node(found: Mapping[str, Any]) -> dict[str, Any]:
    """One node's part."""
    verdict = found.get("node_verdict")
    if verdict is None:
        failure = found.get("mesh_failure")
        problem = {
            "name": "looking" if failure else "unreachable",
            "found": f"it could not be looked at: {failure}" if failure else "it cannot be reached",
            "why": "nobody knows whether it can carry meshed pods",
            "remedy": "see what Ansible said of it, or take it out of the inventory and drain it",
        }
        message = f"{problem['found']}. Why it matters: {problem['why']}. What to do: {problem['remedy']}"
        return {"ok": False, "problems": [problem], "warnings": [], "message": message, "facts": {}}
    return {
        "ok": not verdict["problems"],
        "problems": verdict["problems"],
        "warnings": verdict["warnings"],
        "message": verdict["message"],
        "facts": found["node_facts"],
    }


def report(
    hosts: Mapping[str, Any], names: list[str], requirements: Mapping[str, Any], stack: str, time: str
) -> dict[str, Any]:
    """The whole report."""
    return {
        "schema": SCHEMA,
        "time": time,
        "stack": stack,
        "requirements": requirements.get("hash", ""),
        "nodes": {name: of_node(hosts[name]) for name in names},
    }


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Any]:
        return {"nodes_report": report}
